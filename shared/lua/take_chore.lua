#!lua flags=allow-oom
-- {lease_s} -> {id, kind, token} or nothing
local t = now()
while true do
  local id = call('ZRANGEBYSCORE', P .. 'chores', '-inf', stamp(t), 'LIMIT', 0, 1)[1]
  if not id then return false end
  local key = batch_key(id)
  local b = call('HMGET', key, 'status', 'closing')
  local status, closing = b[1], b[2]
  local kind = false
  if status == 'validating' and closing == '' then
    kind = 'validate'
  elseif status == 'cancelling' or status == 'finalizing' then
    kind = 'finalize'
  elseif (status == 'in_progress' or status == 'validating') and closing ~= '' then
    call('HSET', key, 'status', 'finalizing', 'finalizing_at', math.floor(t))
    kind = 'finalize'
  end
  if kind then
    call('ZADD', P .. 'chores', stamp(t + A.lease_s), id)
    return { id, kind, call('HINCRBY', key, 'chore_token', 1) }
  end
  call('ZREM', P .. 'chores', id)
end
