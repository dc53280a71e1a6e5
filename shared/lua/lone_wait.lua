#!lua flags=allow-oom
-- {id, caller} -> 1 where there is such a job
local key = job_key(A.id)
local j = call('HMGET', key, 'status', 'callers')
if not j[1] then return 0 end
if ended(j[1]) or string.find(',' .. j[2] .. ',', ',' .. A.caller .. ',', 1, true) then return 1 end
call('HDEL', key, 'unwanted')
call('HSET', key, 'callers', j[2] == '' and A.caller or (j[2] .. ',' .. A.caller))
return 1
