#!lua flags=allow-oom
-- {tokens, lease_s} -> one of h, l for each
local t = now()
local out = {}
for i, token in ipairs(A.tokens) do
  local list = L .. 'c:' .. token
  local ids = call('LRANGE', list, 0, -1)
  for _, id in ipairs(ids) do
    if tonumber(call('HGET', job_key(id), 'token')) == token then call('ZADD', L .. 'leases', stamp(t + A.lease_s), id) end
  end
  call('EXPIRE', list, math.ceil(A.lease_s * 4))
  out[i] = #ids > 0 and 'h' or 'l'
end
return table.concat(out)
