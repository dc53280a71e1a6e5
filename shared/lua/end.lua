#!lua flags=allow-oom
-- {id, token, segment} -> 1 or 0
local key = batch_key(A.id)
if not has_chore(A.id, A.token) then return 0 end
local b = call('HMGET', key, 'status', 'closing', 'total')
local status, closing = b[1], b[2]
if status ~= 'finalizing' and status ~= 'cancelling' then return 0 end
local total = tonumber(b[3])
if total > 0 then -- the states are the truth, the counts their summary
  local states = call('GET', key .. ':st') or ''
  if #states ~= total or string.find(states, 'p', 1, true) then return 0 end
  local _, done = string.gsub(states, 'd', '')
  call('HSET', key, 'completed', done, 'failed', total - done)
end
local final = ({ [''] = 'completed', overspent = 'cancelled' })[closing] or closing
call('HSET', key, 'status', final, final .. '_at', math.floor(now()))
for _, n in ipairs(call('SMEMBERS', key .. ':sh')) do
  local ref = A.id .. '/' .. n
  local shard = shard_key(ref)
  leave(ref, shard, A.id, call('HGET', shard, 'state'))
  call('DEL', shard)
end
for segment = 0, math.ceil(tonumber(b[3]) / A.segment) - 1 do
  call('DEL', key .. ':r:' .. segment)
end
call('DEL', key .. ':st', key .. ':ix', key .. ':at', key .. ':ru', key .. ':sh')
for _, set in ipairs({ 'chores', 'windows', 'closing' }) do call('ZREM', P .. set, A.id) end
call('LREM', P .. 'active', 0, A.id)
call('EXPIRE', P .. 'lm:money:batch:' .. A.id, 86400) -- a worker that was cut off may still ask, or tell what it spent
keep_for_retention(key)
return 1
