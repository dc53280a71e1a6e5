#!lua flags=allow-oom
-- {owner, fingerprint, caller} -> the id of the oldest job of the same content whose callers have gone, or nothing
local same = P .. 'same:' .. A.owner .. ':' .. A.fingerprint
local ids = call('SMEMBERS', same)
table.sort(ids)
for _, id in ipairs(ids) do
  local callers = call('HGET', job_key(id), 'callers')
  if not callers then
    call('SREM', same, id)
  elseif not listens(callers) then
    call('HSET', job_key(id), 'callers', A.caller)
    call('HDEL', job_key(id), 'unwanted')
    if A.caller == '' then call('HSET', job_key(id), 'polled', 1) end
    return id
  end
end
return false
