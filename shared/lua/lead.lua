#!lua flags=allow-oom
-- {holder, for_ms} -> 1 where the holder leads
local leader = call('GET', P .. 'leader')
if leader and leader ~= A.holder then return 0 end
call('SET', P .. 'leader', A.holder, 'PX', A.for_ms)
return 1
