#!lua flags=allow-oom
-- {id, batch}: contents nobody needs any more go with the last pin
local key = P .. 'f:' .. A.id
call('ZREM', key .. ':p', A.batch)
if call('EXISTS', key) == 0 and call('ZCARD', key .. ':p') == 0 then call('UNLINK', key .. ':c') end
return 1
