-- {waited, rest, most, holder, lease_s, tolerance_s, most_bytes, hint_timeout_s, overdue_s, reads, look_again_s, most_left}
-- -> {token, claimed_at, more, newer, id, owner, endpoint, body, history, waited, expires, id, ...}, nothing, or the version of what was left
-- because it is newer than the worker reads
local t = now()
call('DEL', L .. 'hinted')
local token = call('INCR', L .. 'token')
local out, bytes, newer, left = { token, stamp(t), 0, 0 }, 0, 0, 0

local function leave_job(id, version)
  call('ZADD', L .. 'newer', version, id)
  call('HSET', job_key(id), 'reason', 'newer_version', 'waits_for', '', 'parked_since', stamp(t), 'until', 0)
  newer, left = math.max(newer, version), left + 1
  return 0
end

local function take(id, in_turn)
  local key = job_key(id)
  local j = call('HMGET', key, 'status', 'token', 'body', 'history', 'callers', 'reason', 'expires', 'v', 'lane')
  if not j[1] or ended(j[1]) or j[2] then return 0 end -- cancelled, or held, meanwhile
  local version = tonumber(j[8] or '1')
  if version > A.reads then return leave_job(id, version) end
  if j[9] and not in_turn then -- a suspect has come due
    job_waits(id, t, t)
    return 0
  end
  call('HSET', key, 'status', 'in_progress', 'token', token, 'holder', A.holder)
  call('HSETNX', key, 'started', stamp(t))
  if j[6] then call('HDEL', key, 'reason') end
  call('ZADD', L .. 'leases', stamp(t + A.lease_s), id)
  call('RPUSH', L .. 'c:' .. token, id)
  local spec = spec_of(key)
  for _, v in ipairs({ id, spec.owner, spec.endpoint, j[3], j[4] or '', j[5] ~= '' and 1 or 0, j[7] }) do out[#out + 1] = v end
  bytes = bytes + #j[3]
  return 1
end

local function drain(list, room)
  while room > 0 and bytes < A.most_bytes and left < A.most_left do
    local id = call('LPOP', L .. list)
    if not id then return end
    room = room - take(id)
  end
end

local readable = call('ZRANGEBYSCORE', L .. 'newer', '-inf', A.reads, 'LIMIT', 0, A.most)
for i = #readable, 1, -1 do
  call('ZREM', L .. 'newer', readable[i])
  enqueue(readable[i], 'L')
end

local waited, rest = A.waited, A.rest
local suspect = waited + rest > 0 and next_suspect(t)
if suspect and not is_ref(suspect) then
  take_lane(suspect)
  call('SET', P .. 'lane:holder', A.holder)
  take(suspect, true)
  waited, rest = 0, 0 -- it runs by itself
end
drain('now', waited)
local room = math.min(rest, A.most - (#out - 4) / 7)
for _, id in ipairs(call('ZRANGEBYSCORE', L .. 'later', '-inf', stamp(t + A.tolerance_s), 'LIMIT', 0, room)) do
  if bytes >= A.most_bytes then break end
  call('ZREM', L .. 'later', id)
  room = room - take(id)
end
drain('soon', room)
if call('EXISTS', L .. 'newer') == 1 then
  local looked = call('ZCOUNT', L .. 'newer', '-inf', A.reads) > 0 and t or t + A.look_again_s
  call('SET', L .. 'looked', stamp(looked), 'EX', 60)
end
if #out == 4 then return newer > 0 and newer end
call('EXPIRE', L .. 'c:' .. token, math.ceil(A.lease_s * 4))
if wants_hint(t) then out[3] = 1 end
out[4] = newer
return out
