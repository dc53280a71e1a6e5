#!lua flags=allow-oom
-- {id, batch}: contents nobody needs any more go with the last pin
local key = P .. 'f:' .. A.id
local t = now()
call('ZREM', key .. ':p', A.batch)
call('ZREMRANGEBYSCORE', key .. ':p', '-inf', stamp(t))
local needed = tonumber(call('ZRANGE', key .. ':p', -1, -1, 'WITHSCORES')[2])
local left = call('TTL', key) -- -2: no such file, -1: it does not expire
if left == -2 and not needed then
  call('UNLINK', key .. ':c')
elseif left >= 0 then -- what a pin has put off goes with its file again
  call('EXPIRE', key .. ':c', math.max(left, math.ceil((needed or t) - t)))
end
return 1
