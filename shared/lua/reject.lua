#!lua flags=allow-oom
-- {id, token, errors} -> 1 or 0
local key = batch_key(A.id)
local b = call('HMGET', key, 'status', 'closing')
if not has_chore(A.id, A.token) or b[1] ~= 'validating' or b[2] ~= '' then return 0 end
call('HSET', key, 'status', 'failed', 'failed_at', math.floor(now()), 'errors', A.errors)
call('ZREM', P .. 'chores', A.id)
call('ZREM', P .. 'windows', A.id)
keep_for_retention(key)
return 1
