#!lua flags=allow-oom
-- {owner, fingerprint, caller} -> the id of a job of the same content whose callers have gone, or nothing
local function gone(callers)
  for caller in string.gmatch(callers, '[^,]+') do
    if call('PUBSUB', 'NUMSUB', P .. 'replies:' .. caller)[2] > 0 then return false end
  end
  return true
end

local same = P .. 'same:' .. A.owner .. ':' .. A.fingerprint
for _, id in ipairs(call('SMEMBERS', same)) do
  local callers = call('HGET', job_key(id), 'callers')
  if not callers then
    call('SREM', same, id)
  elseif gone(callers) then
    call('HSET', job_key(id), 'callers', A.caller)
    return id
  end
end
return false
