#!lua flags=allow-oom
-- {token, jobs, delay_s, kind, provider, charged, anew} -> how many left the claim to wait for their due time
local t = now()
local moved = 0
for _, id in ipairs(A.jobs) do
  local key = job_key(id)
  local j = call('HMGET', key, 'status', 'token', 'started', 'history')
  if j[1] and not ended(j[1]) and tonumber(j[2]) == A.token then
    call('HSET', key, 'history', history_after(j[4], tonumber(j[3])))
    call('HDEL', key, 'token')
    call('ZREM', L .. 'leases', id)
    call('ZADD', L .. 'later', stamp(t + A.delay_s), id)
    moved = moved + 1
  end
end
return moved
