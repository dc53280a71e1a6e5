#!lua flags=allow-oom
-- {id, caller, cancel}
local key = job_key(A.id)
local j = call('HMGET', key, 'status', 'callers')
if not j[1] or ended(j[1]) then return 0 end
local rest = {}
for caller in string.gmatch(j[2], '[^,]+') do
  if caller ~= A.caller then rest[#rest + 1] = caller end
end
call('HSET', key, 'callers', table.concat(rest, ','))
if #rest == 0 and A.cancel and j[1] == 'queued' then end_job(A.id, 'cancelled', '', now()) end
return 1
