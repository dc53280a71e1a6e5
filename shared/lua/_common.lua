-- Stands before every script, below its flags. ARGV[1] is the fleet's key prefix, ARGV[2] the arguments as one msgpack map, ARGV[3] bytes.
-- Redis' own TIME is the only clock. Key names: shared/keys.py.
local P = ARGV[1] .. ':'
local A = cmsgpack.unpack(ARGV[2])
local call = redis.call

local function now()
  local t = call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1e6
end

local function stamp(t) return string.format('%.6f', t) end

-- creating once (shared/idempotency.py); `once`: {owner, name, fingerprint, keep_s, anew}, or false
local function once_key(once) return P .. 'once:' .. once.owner .. ':' .. once.name end

-- the id of what the key has made before, '' where that was from another request, nothing where it is to be made now
local function earlier(once)
  local kept = once and not once.anew and call('GET', once_key(once))
  if not kept then return nil end
  local fingerprint, id = string.match(kept, '^(%S+) (.*)$')
  return fingerprint == once.fingerprint and id or ''
end

local function keep(once, id)
  if once then call('SET', once_key(once), once.fingerprint .. ' ' .. id, 'EX', once.keep_s) end
end

local function batch_key(id) return P .. 'b:' .. id end

-- a ref is BATCH/NUMBER
local function shard_key(ref)
  local id, n = string.match(ref, '^(.*)/(%d+)$')
  return batch_key(id) .. ':s:' .. n, id
end

-- those of the jobs that have not ended
local function pending(id, jobs)
  local states, rest = batch_key(id) .. ':st', {}
  for _, job in ipairs(jobs) do
    if call('GETRANGE', states, job, job) == 'p' then rest[#rest + 1] = job end
  end
  return rest
end

-- a shard leaves the set it is in; what it counted for is given back
local function leave(ref, key, id, state)
  if state == 'hinted' then
    call('ZREM', P .. 'hints', ref)
  elseif state == 'leased' then
    call('ZREM', P .. 'leases', ref)
    call('HINCRBY', batch_key(id), 'leases', -1)
  elseif state == 'later' then
    call('ZREM', P .. 'later', ref)
  elseif state == 'suspect' then
    call('ZREM', P .. 'suspects', ref)
  end
  if state == 'hinted' or state == 'leased' then
    call('DECRBY', P .. 'load', call('HGET', key, 'n'))
  end
end

local function set_jobs(key, jobs)
  call('HSET', key, 'jobs', cjson.encode(jobs), 'n', #jobs)
end

local function new_shard(id, jobs)
  local n = call('HINCRBY', batch_key(id), 'serial', 1)
  local ref = id .. '/' .. n
  local key = shard_key(ref)
  call('SADD', batch_key(id) .. ':sh', n)
  set_jobs(key, jobs)
  return ref, key
end

local function drop_shard(ref)
  local key, id = shard_key(ref)
  call('DEL', key)
  call('SREM', batch_key(id) .. ':sh', string.match(ref, '(%d+)$'))
end

-- the version of a batch's or a lone job's records (shared/versions.py)
local function version_at(key) return tonumber(call('HGET', key, 'v') or '1') end

-- the newest that a worker reads, of those that are alive
local function version_read() return tonumber(call('ZRANGE', P .. 'reads', -1, -1, 'WITHSCORES')[2] or '1') end

-- a shard that is in no set and of a newer release: it is hinted at again, for a worker of that one; A: look_again_s
local function leave_to_newer(ref, key, t)
  local due, old = stamp(t + A.look_again_s), call('HMGET', key, 'reason', 'parked_since')
  local since = old[1] == 'newer_version' and old[2] or stamp(t)
  call('HSET', key, 'state', 'later', 'due', due, 'reason', 'newer_version', 'provider', '', 'parked_since', since, 'until', due)
  call('ZADD', P .. 'later', due, ref)
end

-- what is terminal goes after its retention
local function keep_for_retention(key)
  local seconds = math.floor(cjson.decode(call('HGET', key, 'spec')).retention_s)
  call('EXPIRE', key, seconds)
  call('EXPIRE', key .. ':ta', seconds)
end

-- what has expired is taken off its owner's list a few at a time, whenever one comes: so at most about a quarter of the list is of those
local function drop_gone(list, key_of, t)
  local first = math.floor(t * 1e6) % math.max(1, call('ZCARD', list))
  for _, id in ipairs(call('ZRANGE', list, first, first + 3)) do
    if call('EXISTS', key_of(id)) == 0 then call('ZREM', list, id) end
  end
end

local function due_now(id) call('ZADD', P .. 'chores', stamp(now()), id) end

-- a closing batch is finalized as soon as nobody holds a lease of it
local function close_if_drained(id)
  local b = call('HMGET', batch_key(id), 'closing', 'leases')
  if b[1] and b[1] ~= '' and tonumber(b[2] or '0') <= 0 then due_now(id) end
end

local function begin_closing(id, why, grace_s)
  local key = batch_key(id)
  call('HSET', key, 'closing', why)
  call('LREM', P .. 'active', 0, id)
  call('ZREM', P .. 'windows', id)
  call('ZADD', P .. 'closing', stamp(now() + grace_s), id)
  close_if_drained(id)
end

-- total capacity of the workers heard from of late
local function prune_workers(t, timeout_s)
  local gone = call('ZRANGEBYSCORE', P .. 'alive', '-inf', stamp(t - timeout_s))
  for _, id in ipairs(gone) do
    call('ZREM', P .. 'alive', id)
    call('ZREM', P .. 'reads', id)
    call('HDEL', P .. 'workers', id)
  end
  return #gone
end

local function sum_capacity()
  local sum = 0
  for _, id in ipairs(call('ZRANGE', P .. 'alive', 0, -1)) do
    sum = sum + tonumber(string.match(call('HGET', P .. 'workers', id) or '', '^(%d+) ') or '0')
  end
  call('SET', P .. 'capacity', sum)
end

-- whether this round of the reaper leaves leases alone (shared/forbearance.py); A: silence_s, forbear_s
local function forbears(key, t)
  local r = call('HMGET', key, 'at', 'until')
  local at, ends = tonumber(r[1] or ''), tonumber(r[2] or '0')
  if at and t - at > A.silence_s and at >= ends then ends = t + A.forbear_s end
  call('HSET', key, 'at', stamp(t), 'until', stamp(ends))
  return t < ends
end

local function holds(key, token)
  local s = call('HMGET', key, 'state', 'token')
  return s[1] == 'leased' and tonumber(s[2]) == token
end

-- who has the batch's chore now?
local function has_chore(id, token)
  return tonumber(call('HGET', batch_key(id), 'chore_token') or '-1') == token
end

-- the average bytes of an answer, over about the last thousand: what room is promised by (shared/room.py)
local function average_answers(count, bytes)
  if count == 0 then return end
  local mean = bytes / count
  local before = tonumber(call('GET', P .. 'answer') or '') or mean
  call('SET', P .. 'answer', string.format('%.3f', before + (mean - before) * math.min(1, count / 1000)))
end

-- when the latest call began that was answered; A.served: provider -> that of these outcomes
local function note_served()
  for provider, began in pairs(A.served) do
    if began > tonumber(call('HGET', P .. 'served', provider) or '0') then call('HSET', P .. 'served', provider, stamp(began)) end
  end
end

-- what is parked comes back earlier when a provider that it waits for serves again (wake in _gate.lua); A: wait_for
local function await(ref, due)
  for _, provider in ipairs(A.wait_for) do
    local key = P .. 'wait:' .. provider
    call('ZREMRANGEBYSCORE', key, '-inf', stamp(now()))
    call('ZADD', key, stamp(due), ref)
    call('EXPIRE', key, math.ceil(A.delay_s) + 3600)
  end
end

-- when what leaves its shard is due: soon where a provider has begun to serve again since the worker was told to wait; A: wait_for, asked_at, soon_s
local function due_after(t)
  for _, provider in ipairs(A.asked_at > 0 and A.wait_for or {}) do
    local woken = tonumber(call('GET', P .. 'woken:' .. provider) or '')
    if woken and woken > A.asked_at then return t + math.min(A.delay_s, A.soon_s) end
  end
  return t + A.delay_s
end

-- a job's history after it leaves its shard to wait; `tries`: the calls just made. A: kind, charged, provider, anew, blocked (as jobs.Split)
local function history_after(raw, since, tries)
  if A.blocked and #tries == 0 then return raw end
  local h = raw and cjson.decode(raw) or { attempts = 0, since = since, tried = {}, parked = 0 }
  h.faults = h.faults or 0
  for _, try in ipairs(tries) do
    if try[2] == 0 or try[2] >= 500 then h.faults = h.faults + 1 end
  end
  if A.kind == 'park' or not A.charged then h.parked = h.parked + 1 end
  if A.charged then h.attempts = h.attempts + 1 end
  if A.provider ~= '' then
    local tried = {}
    for _, p in ipairs(h.tried or {}) do if p ~= A.provider then tried[#tried + 1] = p end end
    tried[#tried + 1] = A.provider
    h.tried = tried
  end
  if A.anew then h.attempts, h.faults, h.since = 0, 0, since end
  if h.since == 0 and (h.attempts > 0 or h.faults > 0) then h.since = since end
  if h.tried and #h.tried == 0 then h.tried = nil end
  local all = h.tries or {}
  for _, try in ipairs(tries) do all[#all + 1] = try end
  while #all > A.most_tries do table.remove(all, 1) end
  h.tries = #all > 0 and all or nil
  return cjson.encode(h)
end
