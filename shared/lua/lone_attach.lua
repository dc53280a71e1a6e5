-- {owner, fingerprint, caller} -> the id of the oldest job of the same content whose callers have gone, or nothing
local ids = call('SMEMBERS', P .. 'same:' .. A.owner .. ':' .. A.fingerprint)
table.sort(ids)
for _, id in ipairs(ids) do
  local callers = call('HGET', job_key(id), 'callers')
  if callers and not anybody_hears(callers) then
    call('HSET', job_key(id), 'callers', A.caller)
    return id
  end
end
return false
