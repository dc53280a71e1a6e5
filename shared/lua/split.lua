#!lua flags=allow-oom
-- {ref, token, jobs, kind, delay_s, provider, charged, anew, reason, wait_for, serves_s, blocked, tries, most_tries, overdue_s, asked_at, soon_s}
-- -> the new shard's ref, or nothing
local key, id = shard_key(A.ref)
if not holds(key, A.token) then return false end
local batch = batch_key(id)
local wanted = {}
for i, job in ipairs(A.jobs) do wanted[job] = A.tries[i] or {} end
local moved, kept = {}, {}
for _, job in ipairs(cjson.decode(call('HGET', key, 'jobs'))) do
  if wanted[job] then moved[#moved + 1] = job else kept[#kept + 1] = job end
end
moved = pending(id, moved)
if #moved == 0 then return false end
call('HSET', key, 'jobs', cjson.encode(kept))
call('HINCRBY', key, 'n', -#moved)
call('DECRBY', P .. 'load', #moved)
local old = call('HMGET', key, 'claimed_at', 'parked_since', 'reason', 'provider', 'lane')
for _, job in ipairs(moved) do
  local history = history_after(call('HGET', batch .. ':at', job), tonumber(old[1]), wanted[job])
  if history then call('HSET', batch .. ':at', job, history) end
end
local t = now()
local ref, shard = new_shard(id, moved)
local due = due_after(t)
call('HSET', shard, 'state', 'later', 'due', stamp(due))
call('ZADD', P .. 'later', stamp(due + (A.kind == 'retry' and A.overdue_s or 0)), ref)
if A.blocked and old[5] then call('HSET', shard, 'lane', 1) end -- it was not tried: still a suspect
if A.reason ~= '' then
  local provider = A.provider ~= '' and A.provider or A.wait_for[1] or ''
  local still = old[3] == A.reason and old[4] == provider
  call('HSET', shard, 'reason', A.reason, 'provider', provider, 'parked_since', still and old[2] or stamp(t),
    'until', stamp(t + math.max(A.delay_s, A.serves_s)))
  await(ref, due)
end
return ref
