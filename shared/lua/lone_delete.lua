#!lua flags=allow-oom
-- {id, owner} forgets a job that has ended
local status = call('HGET', job_key(A.id), 'status')
if not status or not ended(status) then return 0 end
call('DEL', job_key(A.id))
call('ZREM', L .. 'kept', A.id)
call('ZREM', P .. 'js:' .. A.owner, A.id)
return 1
