#!lua flags=allow-oom
-- {held = {{ref, token}, ...}, lease_s} -> one of h, c, l for each
local t = now()
local out = {}
for i, pair in ipairs(A.held) do
  local key, id = shard_key(pair[1])
  if not holds(key, pair[2]) then
    out[i] = 'l'
  else
    call('ZADD', P .. 'leases', stamp(t + A.lease_s), pair[1])
    local b = call('HMGET', batch_key(id), 'status', 'closing')
    out[i] = (b[1] == 'in_progress' and b[2] == '') and 'h' or 'c'
  end
end
return table.concat(out)
