#!lua flags=allow-oom
-- {id, seconds}: chunks of a file that is not published yet go by themselves; a published one keeps its own time
local key = P .. 'f:' .. A.id
if call('EXISTS', key) == 0 then call('EXPIRE', key .. ':c', A.seconds) end
return 1
