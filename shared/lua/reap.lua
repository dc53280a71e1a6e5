#!lua flags=allow-oom
-- {most, heartbeat_timeout_s, grace_s, silence_s, forbear_s} -> {recovered, rehinted, woken, expired, workers_lost}
local t = now()

local function each(set, act)
  local refs = call('ZRANGEBYSCORE', P .. set, '-inf', stamp(t), 'LIMIT', 0, A.most)
  for _, ref in ipairs(refs) do act(ref) end
  return #refs
end

local function to_ready(ref, state)
  local key, id = shard_key(ref)
  if call('HGET', key, 'state') ~= state then
    call('ZREM', P .. (state == 'leased' and 'leases' or state == 'hinted' and 'hints' or 'later'), ref)
    return
  end
  local rest = pending(id, cjson.decode(call('HGET', key, 'jobs')))
  leave(ref, key, id, state)
  if #rest == 0 or call('HGET', batch_key(id), 'closing') ~= '' then
    drop_shard(ref)
    close_if_drained(id)
  else
    make_ready(ref, key, rest)
  end
end

local recovered = forbears(P .. 'reaped', t) and 0 or each('leases', function(ref) to_ready(ref, 'leased') end)
local rehinted = each('hints', function(ref) to_ready(ref, 'hinted') end)
local woken = each('later', function(ref) to_ready(ref, 'later') end)
local expired = each('windows', function(id)
  call('ZREM', P .. 'windows', id)
  local status = call('HGET', batch_key(id), 'status')
  if status == 'validating' or status == 'in_progress' then begin_closing(id, 'expired', A.grace_s) end
end)
each('closing', function(id)
  call('ZREM', P .. 'closing', id)
  due_now(id)
end)
local lost = prune_workers(t, A.heartbeat_timeout_s)
if lost > 0 then sum_capacity() end
return { recovered, rehinted, woken, expired, lost }
