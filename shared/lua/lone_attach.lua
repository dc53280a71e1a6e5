#!lua flags=allow-oom
-- {owner, fingerprint, caller} -> the id of the oldest job of the same content whose callers have gone, or nothing
local same = P .. 'same:' .. A.owner .. ':' .. A.fingerprint
local ids = call('SMEMBERS', same)
table.sort(ids)
for _, id in ipairs(ids) do
  local j = call('HMGET', job_key(id), 'status', 'callers')
  if not j[1] then
    call('SREM', same, id)
  elseif ended(j[1]) then
    if A.caller ~= '' then call('SREM', same, id) end
    return id
  elseif not listens(j[2]) then
    call('HSET', job_key(id), 'callers', A.caller)
    return id
  end
end
return false
