#!lua flags=allow-oom
-- {lease_s, reads, look_again_s} -> {id, kind, token} or nothing; what is of a newer release is left to a process of that one
local t = now()
while true do
  local id = call('ZRANGEBYSCORE', P .. 'chores', '-inf', stamp(t), 'LIMIT', 0, 1)[1]
  if not id then return false end
  local key = batch_key(id)
  local b = call('HMGET', key, 'status', 'closing', 'v')
  local status, closing = b[1], b[2]
  local kind, newer = false, tonumber(b[3] or '1') > A.reads
  if newer then
    call('ZADD', P .. 'chores', stamp(t + A.look_again_s), id)
  elseif status == 'validating' and closing == '' then
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
  if not newer then call('ZREM', P .. 'chores', id) end
end
