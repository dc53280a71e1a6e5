-- {shard_size, least, most, hint_timeout_s, look_again_s} -> {the newest version that was passed over for want of a worker that reads it, or 0; refs to hint at}
local t = now()
local capacity = tonumber(call('GET', P .. 'capacity') or '0')
local load = tonumber(call('GET', P .. 'load') or '0')
local reads, refs, newest = version_read(), {}, 0

local function hint(ref, key, n)
  call('HSET', key, 'state', 'hinted')
  call('ZADD', P .. 'hints', stamp(t + A.hint_timeout_s), ref)
  load = call('INCRBY', P .. 'load', n)
  refs[#refs + 1] = ref
end

-- first a suspect, where none is out
local suspect = load < capacity and A.most > 0 and next_suspect(t)
if suspect and is_ref(suspect) then
  local key = shard_key(suspect)
  take_lane(suspect)
  hint(suspect, key, tonumber(call('HGET', key, 'n')))
end

-- the next of those that were handed out before and came back
local function back()
  while true do
    local ref = call('LPOP', P .. 'ready')
    if not ref then return false end
    local key, id = shard_key(ref)
    local s = call('HMGET', key, 'state', 'n')
    if s[1] == 'ready' then
      local version = version_at(batch_key(id))
      if version <= reads then
        hint(ref, key, tonumber(s[2]))
        return true
      end
      newest = math.max(newest, version)
      leave_to_newer(ref, key, t)
    end
  end
end

-- fresh jobs of the batch whose turn it is; those of which no worker reads the version are passed over
local workers = math.max(1, call('ZCARD', P .. 'alive'))
local function fresh()
  local passed = 0
  while passed < call('LLEN', P .. 'active') do
    local id = call('LMOVE', P .. 'active', P .. 'active', 'LEFT', 'RIGHT')
    local key = batch_key(id)
    local b = call('HMGET', key, 'status', 'closing', 'cursor', 'total', 'v')
    local cursor, total = tonumber(b[3] or '0'), tonumber(b[4] or '0')
    if b[1] ~= 'in_progress' or b[2] ~= '' or cursor >= total then
      call('LREM', P .. 'active', 0, id)
    elseif tonumber(b[5] or '1') > reads then
      passed, newest = passed + 1, math.max(newest, tonumber(b[5]))
    else
      passed = 0
      local left = total - cursor
      local size = math.min(left, A.shard_size, math.max(A.least, math.ceil(left / (2 * workers))))
      local jobs = {}
      for i = 1, size do jobs[i] = cursor + i - 1 end
      call('HSET', key, 'cursor', cursor + size)
      if cursor + size >= total then call('LREM', P .. 'active', 0, id) end
      local ref, shard = new_shard(id, jobs)
      hint(ref, shard, size)
      return true
    end
  end
  return false
end

-- by turns, over calls too: thousands of jobs that come back again and again must not keep fresh ones from their first try
while load < capacity and #refs < A.most do
  local first, second = back, fresh
  if call('INCR', P .. 'turn') % 2 == 0 then
    first, second = fresh, back
  end
  if not (first() or second()) then break end
end
return { newest, refs }
