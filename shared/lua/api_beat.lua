#!lua flags=allow-oom
-- {id, record, timeout_s}; without a record the process says goodbye. A value is the time it was heard, and the record
local t, key = now(), P .. 'apis'
if A.record then call('HSET', key, A.id, stamp(t) .. ' ' .. A.record) else call('HDEL', key, A.id) end
local rows = call('HGETALL', key)
for i = 1, #rows, 2 do
  if tonumber(string.match(rows[i + 1], '^%S+')) <= t - A.timeout_s then call('HDEL', key, rows[i]) end
end
call('EXPIRE', key, math.ceil(A.timeout_s))
return 1
