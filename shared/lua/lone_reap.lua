-- {most} -> {recovered, expired, removed, left}
local t = now()
local recovered, expired, removed = 0, 0, 0
local over = call('ZRANGEBYSCORE', L .. 'leases', '-inf', stamp(t), 'LIMIT', 0, A.most)
for _, id in ipairs(over) do
  local key = job_key(id)
  local j = call('HMGET', key, 'status', 'token')
  call('ZREM', L .. 'leases', id)
  if j[1] and not ended(j[1]) and j[2] ~= '' then
    call('DEL', L .. 'c:' .. j[2], L .. 'hinted')
    call('HSET', key, 'token', '')
    enqueue(id, 'L')
    recovered = recovered + 1
  end
end
local due = call('ZRANGEBYSCORE', L .. 'ends', '-inf', stamp(t), 'LIMIT', 0, A.most)
for _, id in ipairs(due) do
  local status = call('HGET', job_key(id), 'status')
  if not status then
    call('ZREM', L .. 'ends', id)
  elseif ended(status) then
    forget(id)
    removed = removed + 1
  else
    end_job(id, 'expired', '', t)
    expired = expired + 1
  end
end
tell()
return { recovered, expired, removed, (#over == A.most or #due == A.most) and 1 or 0 }
