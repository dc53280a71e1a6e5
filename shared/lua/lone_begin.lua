#!lua flags=allow-oom
-- {id} -> 1 where the claimed job is to be called; 0 where it has ended, or ends now since nobody wants it any more
local j = call('HMGET', job_key(A.id), 'status', 'unwanted')
if not j[1] or ended(j[1]) then return 0 end
if not j[2] then return 1 end
end_job(A.id, 'cancelled', '', now())
tell()
return 0
