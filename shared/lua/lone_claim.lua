-- {waited, rest, most, holder, lease_s, tolerance_s, most_bytes, hint_timeout_s, overdue_s}
-- -> {token, claimed_at, more, id, owner, endpoint, body, history, waited, expires, id, ...} or nothing
local t = now()
call('DEL', L .. 'hinted')
local token = call('INCR', L .. 'token')
local out, bytes = { token, stamp(t), 0 }, 0

local function take(id)
  local key = job_key(id)
  local j = call('HMGET', key, 'status', 'token', 'body', 'history', 'callers', 'reason', 'expires')
  if not j[1] or ended(j[1]) or j[2] then return 0 end -- cancelled, or held, meanwhile
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
  while room > 0 and bytes < A.most_bytes do
    local id = call('LPOP', L .. list)
    if not id then return end
    room = room - take(id)
  end
end

drain('now', A.waited)
local room = math.min(A.rest, A.most - (#out - 3) / 7)
for _, id in ipairs(call('ZRANGEBYSCORE', L .. 'later', '-inf', stamp(t + A.tolerance_s), 'LIMIT', 0, room)) do
  if bytes >= A.most_bytes then break end
  call('ZREM', L .. 'later', id)
  room = room - take(id)
end
drain('soon', room)
if #out == 3 then return false end
call('EXPIRE', L .. 'c:' .. token, math.ceil(A.lease_s * 4))
if wants_hint(t) then out[3] = 1 end
return out
