#!lua flags=allow-oom
-- {id, writer, serial, outcomes = {{job, ok, line, provider, in, cached, out, reasoning, cost_nanos|false, ref, token}, ...}, served, segment, writer_ttl_s}
-- -> msgpack {accepted = '110', segments = '0,3', open = bool, hungry = bool}
local writer = P .. 'wr:' .. A.writer
local w = call('HMGET', writer, 'serial', 'reply')
if w[1] and tonumber(w[1]) == A.serial then return w[2] end
local key = batch_key(A.id)
local exists = call('EXISTS', key) == 1
local accepted, touched = {}, {}
local done, failed, bytes, sums, held = 0, 0, 0, {}, {}

local function add(provider, field, n)
  if n ~= 0 then
    local name = provider .. '|' .. field
    sums[name] = (sums[name] or 0) + n
  end
end

for i, o in ipairs(A.outcomes) do
  local job, ok, provider = o[1], o[2], o[4]
  if call('GETRANGE', key .. ':st', job, job) == 'p' then
    local segment = math.floor(job / A.segment)
    call('SETRANGE', key .. ':st', job, ok and 'd' or 'f')
    call('HSET', key .. ':r:' .. segment, job, o[3])
    call('HDEL', key .. ':at', job)
    touched[segment] = true
    accepted[i] = '1'
    if ok then done, bytes = done + 1, bytes + #o[3] else failed = failed + 1 end
    if o[10] ~= '' then
      local h = held[o[10]] or { token = o[11], n = 0 }
      h.n = h.n + 1
      held[o[10]] = h
    end
    if provider ~= '' then add(provider, ok and 'completed' or 'failed', 1) end
  else
    accepted[i] = '0'
  end
  if provider ~= '' then
    add(provider, 'in', o[5])
    add(provider, 'cached', o[6])
    add(provider, 'out', o[7])
    add(provider, 'reasoning', o[8])
    if o[9] then add(provider, 'cost', o[9]) elseif ok then add(provider, 'unpriced', 1) end
  end
end

-- what has ended is no load any more; a shard that has changed hands is counted anew when it is claimed
for ref, h in pairs(held) do
  local shard = shard_key(ref)
  if holds(shard, h.token) then
    call('HINCRBY', shard, 'n', -h.n)
    call('DECRBY', P .. 'load', h.n)
  end
end

local open, segments = false, {}
if exists then
  local completed = call('HINCRBY', key, 'completed', done)
  failed = call('HINCRBY', key, 'failed', failed)
  local b = call('HMGET', key, 'status', 'closing', 'total')
  open = b[1] == 'in_progress' and b[2] == ''
  for segment in pairs(touched) do
    local states = call('GETRANGE', key .. ':st', segment * A.segment, (segment + 1) * A.segment - 1)
    if not string.find(states, 'p', 1, true) then segments[#segments + 1] = segment end
  end
  if completed + failed == tonumber(b[3]) and b[1] == 'in_progress' then
    call('HSET', key, 'status', 'finalizing', 'finalizing_at', math.floor(now()))
    due_now(A.id)
    open = false
  end
end
-- last, and each for itself: a sum that will not fit must not undo what has been counted
if exists then
  for name, n in pairs(sums) do redis.pcall('HINCRBY', key .. ':ta', name, string.format('%.0f', n)) end
end
average_answers(done, bytes)
note_served()
local hungry = (call('EXISTS', P .. 'active') == 1 or call('EXISTS', P .. 'ready') == 1 or next_suspect(now()) ~= nil)
  and tonumber(call('GET', P .. 'load') or '0') < tonumber(call('GET', P .. 'capacity') or '0')
local reply = cmsgpack.pack({ hungry = hungry, accepted = table.concat(accepted), segments = table.concat(segments, ','), open = open })
call('HSET', writer, 'serial', A.serial, 'reply', reply)
call('EXPIRE', writer, A.writer_ttl_s)
return reply
