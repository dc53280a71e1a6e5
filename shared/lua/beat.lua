#!lua flags=allow-oom
-- {id, record, capacity, reads, timeout_s}; without a record the worker says goodbye
-- The fleet's capacity is added up only where it has changed: else hundreds of workers would each add up hundreds, all the time.
local t, changed = now(), true
if A.record then
  local before = call('HGET', P .. 'workers', A.id)
  changed = not before or tonumber(string.match(before, '^%d+')) ~= A.capacity
  call('HSET', P .. 'workers', A.id, A.capacity .. ' ' .. A.record)
  call('ZADD', P .. 'alive', stamp(t), A.id)
  call('ZADD', P .. 'reads', A.reads, A.id)
else
  call('HDEL', P .. 'workers', A.id)
  call('ZREM', P .. 'alive', A.id)
  call('ZREM', P .. 'reads', A.id)
  call('SET', P .. 'left:' .. A.id, 1, 'EX', 3600) -- what it may still hold is not blamed, should it be killed now
end
if prune_workers(t, A.timeout_s) > 0 or changed then sum_capacity() end
return 1
