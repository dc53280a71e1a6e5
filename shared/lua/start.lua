#!lua flags=allow-oom
-- {id, token, model?}, ARGV[3] = index -> 1 or 0
local key = batch_key(A.id)
local b = call('HMGET', key, 'status', 'closing')
if not has_chore(A.id, A.token) or b[1] ~= 'validating' or b[2] ~= '' then return 0 end
local index = ARGV[3]
local total = #index / 8
call('SET', key .. ':ix', index)
call('SET', key .. ':st', string.rep('p', total))
call('HSET', key, 'status', 'in_progress', 'in_progress_at', math.floor(now()), 'total', total, 'cursor', 0)
if A.model then call('HSET', key, 'model', A.model) end
call('RPUSH', P .. 'active', A.id)
call('ZREM', P .. 'chores', A.id)
return 1
