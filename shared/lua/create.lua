-- {id, owner, spec, v, window_s, lines, once|false} -> the id of the batch; '' where its idempotency key made something else
local made = earlier(A.once)
if made then return made end
local key = batch_key(A.id)
if call('EXISTS', key) == 1 then return A.id end
local t = now()
call('HSET', key, 'spec', A.spec, 'v', A.v, 'status', 'validating', 'created_at', math.floor(t),
  'expires_at', math.floor(t + A.window_s), 'closing', '', 'lines', A.lines, 'total', 0, 'completed', 0, 'failed', 0, 'leases', 0)
drop_gone(P .. 'bs:' .. A.owner, batch_key, t)
call('ZADD', P .. 'bs:' .. A.owner, 0, A.id)
call('ZADD', P .. 'windows', stamp(t + A.window_s), A.id)
due_now(A.id)
keep(A.once, A.id)
return A.id
