#!lua flags=allow-oom
-- {id, record, capacity, reads, timeout_s}; without a record the worker says goodbye
local t = now()
if A.record then
  call('HSET', P .. 'workers', A.id, A.capacity .. ' ' .. A.record)
  call('ZADD', P .. 'alive', stamp(t), A.id)
  call('ZADD', P .. 'reads', A.reads, A.id)
else
  call('HDEL', P .. 'workers', A.id)
  call('ZREM', P .. 'alive', A.id)
  call('ZREM', P .. 'reads', A.id)
end
prune_workers(t, A.timeout_s)
sum_capacity()
return 1
