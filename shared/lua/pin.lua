-- {id, batch, until} -> 1, or 0 where there is no such file
local key = P .. 'f:' .. A.id
if call('EXISTS', key) == 0 then return 0 end
call('ZADD', key .. ':p', A['until'], A.batch)
if now() + math.max(0, call('TTL', key .. ':p')) < A['until'] then call('EXPIREAT', key .. ':p', math.ceil(A['until'])) end
local left = call('TTL', key .. ':c')
if left >= 0 and now() + left < A['until'] then call('EXPIREAT', key .. ':c', math.ceil(A['until'])) end
return 1
