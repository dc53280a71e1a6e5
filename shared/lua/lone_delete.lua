-- {id} forgets a job that has ended
local status = call('HGET', job_key(A.id), 'status')
if not status or not ended(status) then return 0 end
forget(A.id)
return 1
