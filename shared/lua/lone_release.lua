#!lua flags=allow-oom
-- {token} -> 1, or 0 where the lease was lost; jobs that have not ended go back to the front
local list = L .. 'c:' .. A.token
local ids = call('LRANGE', list, 0, -1)
call('DEL', list)
for i = #ids, 1, -1 do
  local key = job_key(ids[i])
  if tonumber(call('HGET', key, 'token')) == A.token then
    call('HDEL', key, 'token')
    call('ZREM', L .. 'leases', ids[i])
    enqueue(ids[i], 'L')
    call('DEL', L .. 'hinted')
  end
end
return #ids > 0 and 1 or 0
