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
  local key = job_key(id)
  local j = call('HMGET', key, 'status', 'spec')
  if j[1] and not ended(j[1]) then
    end_job(id, 'expired', '', t)
    expired = expired + 1
  else
    if j[2] then call('ZREM', P .. 'js:' .. cjson.decode(j[2]).owner, id) end
    call('DEL', key)
    call('ZREM', L .. 'ends', id)
    removed = removed + 1
  end
end
tell()
return { recovered, expired, removed, (#over == A.most or #due == A.most) and 1 or 0 }
