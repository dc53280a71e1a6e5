-- {ref, token, jobs, kind, delay_s, provider, charged, anew, overdue_s} -> the new shard's ref, or nothing
local key, id = shard_key(A.ref)
if not holds(key, A.token) then return false end
local batch = batch_key(id)
local wanted = {}
for _, job in ipairs(A.jobs) do wanted[job] = true end
local moved, kept = {}, {}
for _, job in ipairs(cjson.decode(call('HGET', key, 'jobs'))) do
  if wanted[job] then moved[#moved + 1] = job else kept[#kept + 1] = job end
end
moved = pending(id, moved)
if #moved == 0 then return false end
call('HSET', key, 'jobs', cjson.encode(kept))
call('HINCRBY', key, 'n', -#moved)
call('DECRBY', P .. 'load', #moved)
local since = tonumber(call('HGET', key, 'claimed_at'))
for _, job in ipairs(moved) do
  local raw = call('HGET', batch .. ':at', job)
  local h = raw and cjson.decode(raw) or { attempts = 0, since = since, tried = {}, parked = 0 }
  if A.kind == 'park' or not A.charged then h.parked = h.parked + 1 end
  if A.charged then h.attempts = h.attempts + 1 end
  if A.provider ~= '' then
    local tried = {}
    for _, p in ipairs(h.tried or {}) do if p ~= A.provider then tried[#tried + 1] = p end end
    tried[#tried + 1] = A.provider
    h.tried = tried
  end
  if A.anew then h.attempts, h.since = 0, 0 end
  if h.since == 0 and h.attempts > 0 then h.since = since end
  if h.tried and #h.tried == 0 then h.tried = nil end
  call('HSET', batch .. ':at', job, cjson.encode(h))
end
local t = now()
local ref, shard = new_shard(id, moved)
call('HSET', shard, 'state', 'later', 'due', stamp(t + A.delay_s))
call('ZADD', P .. 'later', stamp(t + A.delay_s + (A.kind == 'retry' and A.overdue_s or 0)), ref)
return ref
