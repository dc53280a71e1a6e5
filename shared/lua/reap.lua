#!lua flags=allow-oom
-- {most, heartbeat_timeout_s, grace_s, silence_s, forbear_s, and what _lane.lua names}
-- -> {recovered, rehinted, woken, expired, workers_lost, suspects = {batch, job, recoveries, alone, batch, ...}}
local t = now()

local function each(set, act)
  local refs = call('ZRANGEBYSCORE', P .. set, '-inf', stamp(t), 'LIMIT', 0, A.most)
  for _, ref in ipairs(refs) do act(ref) end
  return #refs
end

local suspects = {}

-- the worker that had these jobs has died: suspects leave the shard to wait for the lane, in groups or each by itself
local function after_death(ref, key, id, jobs)
  note_death(call('HGET', key, 'holder'))
  local histories, alone = batch_key(id) .. ':at', #jobs == 1 and call('HEXISTS', key, 'lane') == 1
  local rest, group, single = {}, {}, {}
  for _, job in ipairs(jobs) do
    local h, raw = history_after_death(call('HGET', histories, job), alone)
    call('HSET', histories, job, raw)
    if not is_suspect(h) then
      rest[#rest + 1] = job
    else
      if h.recoveries < A.single_from then group[#group + 1] = job else single[#single + 1] = { job, due_again(h, t) } end
      for _, v in ipairs({ id, job, h.recoveries, h.alone }) do suspects[#suspects + 1] = v end
    end
  end
  local function wait(some, due)
    local new, shard = new_shard(id, some)
    shard_waits(new, shard, t, due)
  end
  for first = 1, #group, A.group do
    local some = {}
    for i = first, math.min(first + A.group - 1, #group) do some[#some + 1] = group[i] end
    wait(some, t)
  end
  for _, one in ipairs(single) do wait({ one[1] }, one[2]) end
  call('HDEL', key, 'lane')
  if #rest > 0 then make_ready(ref, key, rest) else drop_shard(ref) end
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
  elseif state == 'leased' and died(call('HGET', key, 'holder'), t) then
    after_death(ref, key, id, rest)
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
return { recovered, rehinted, woken, expired, lost, suspects }
