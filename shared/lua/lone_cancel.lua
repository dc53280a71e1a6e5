#!lua flags=allow-oom
-- {id} -> 1 where there is such a job
local status = call('HGET', job_key(A.id), 'status')
if not status then return 0 end
if not ended(status) then
  end_job(A.id, 'cancelled', '', now())
  tell()
end
return 1
