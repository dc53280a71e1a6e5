#!lua flags=allow-oom
-- {id} -> 1, or 0 where there is no such file
local key = P .. 'f:' .. A.id
local record = call('GET', key)
if not record then return 0 end
call('DEL', key)
call('ZREM', P .. 'fs:' .. cjson.decode(record).owner, A.id)
call('ZREMRANGEBYSCORE', key .. ':p', '-inf', stamp(now()))
if call('ZCARD', key .. ':p') == 0 then call('UNLINK', key .. ':c') end
return 1
