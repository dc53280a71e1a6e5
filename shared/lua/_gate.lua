-- Stands before gate and gate_change: the machine of shared/breaker.py and shared/condition.py, word for word.
-- A provider's condition is one JSON record (condition.Condition); its recent calls are a hash for each slot of time.
local S = A.settings
local t = now()
local conditions, changed, changes, woken, told = {}, {}, {}, {}, {}

local function is_good(result) return result == 'answered' or result == 'slow' end

local function condition_of(provider)
  local c = conditions[provider]
  if c then return c end
  local raw = call('GET', P .. 'pv:' .. provider)
  c = raw and cjson.decode(raw) or {
    disabled = false, calls = 0, failures = 0, consecutive_failures = 0, success_rate = 1, latency_s = 0, latest_s = 0,
    per_token_s = 0, answered_at = 0,
  }
  for _, map in ipairs({ 'breakers', 'cool_downs', 'refusals', 'tokens' }) do c[map] = c[map] or {} end
  conditions[provider] = c
  return c
end

local function circuit_of(c, target)
  return c.breakers[target] or {
    state = 'closed', failures = 0, successes = 0, openings = 0, ['until'] = 0, since = 0, generation = 0, reason = '',
    probes = {}, window = {},
  }
end

local function count_of(map)
  local n = 0
  for _ in pairs(map) do n = n + 1 end
  return n
end

local function enter(b, state, at)
  b.state, b.since, b.generation = state, at, b.generation + 1
end

local function open(b, at, reason, spread)
  b.openings = b.openings + 1
  local longest = math.max(S.reset_timeout_s, S.max_reset_timeout_s)
  local whole = math.min(S.reset_timeout_s * S.reset_multiplier ^ (math.min(b.openings, 64) - 1), longest)
  b['until'] = at + whole * (1 + S.jitter * spread)
  b.reason, b.probes, b.window = reason, {}, {}
  enter(b, 'open', at)
end

local function half_open(b, at)
  b.successes, b.probes = 0, {}
  enter(b, 'half-open', at)
end

local function close(b, at)
  b.failures, b.successes, b.openings, b.probes, b.window = 0, 0, 0, {}, {}
  enter(b, 'closed', at)
end

-- the breaker has been touched: it is kept, and a change of its state is told
local function note(provider, c, target, b, before)
  local new = b.generation == 0 and b.failures == 0 and next(b.window) == nil
  c.breakers[target] = not new and b or nil
  if b.state ~= before then
    changes[#changes + 1] = { provider, target, before, b.state, b['until'], b.reason }
    if b.state == 'closed' then woken[provider] = true end
  end
end

local function admit(b, permit)
  if b.state == 'closed' then return true, false, 0 end
  if b.state == 'open' then
    if t < b['until'] then return false, false, b['until'] end
    half_open(b, t)
  end
  local first, held = math.huge, 0
  for p, ends in pairs(b.probes) do
    if ends > t then
      first, held = math.min(first, ends), held + 1
    else
      b.probes[p] = nil
    end
  end
  if held >= S.half_open_permits then return false, false, first end
  b.probes[permit] = t + S.probe_lease_s
  return true, true, 0
end

local function counted(b, at, failed)
  if not S.failure_rate then return end
  local slot = math.floor(at / S.window_s * A.breaker_slots)
  for n in pairs(b.window) do
    if tonumber(n) <= slot - A.breaker_slots then b.window[n] = nil end
  end
  local name = string.format('%d', slot)
  local counts = b.window[name] or { 0, 0 }
  b.window[name] = { counts[1] + 1, counts[2] + (failed and 1 or 0) }
end

local function too_many(b)
  if not S.failure_rate then return false end
  local calls, failures = 0, 0
  for _, counts in pairs(b.window) do calls, failures = calls + counts[1], failures + counts[2] end
  return calls >= S.minimum_calls and failures >= S.failure_rate * calls
end

-- `result`: answered, slow, failed, or what says nothing
local function settle(b, at, permit, generation, result, reason, spread)
  b.probes[permit] = nil
  local failed = result == 'failed' or result == 'slow'
  if not (failed or result == 'answered') or generation ~= b.generation or b.state == 'open' then return end
  if b.state == 'half-open' then
    if failed then return open(b, at, reason, spread) end
    b.successes = b.successes + 1
    if b.successes >= S.success_threshold then close(b, at) end
    return
  end
  b.failures = failed and b.failures + 1 or 0
  counted(b, at, failed)
  if failed and (b.failures >= S.failure_threshold or too_many(b)) then open(b, at, reason, spread) end
end

-- what waits for the provider comes back, spread out (the wait sets: park in _common.lua)
local function wake(provider)
  local key = P .. 'wait:' .. provider
  call('SET', P .. 'woken:' .. provider, stamp(t), 'EX', A.woken_kept_s)
  local refs = call('ZRANGE', key, 0, A.wake_most - 1)
  for i, ref in ipairs(refs) do
    local due = t + A.wake_s * (i - 1) / #refs
    local job = not string.find(ref, '/', 1, true)
    local later = P .. (job and 'lone:later' or 'later')
    local score = call('ZSCORE', later, ref)
    if score and tonumber(score) > due then
      call('ZADD', later, stamp(due), ref)
      if not job then call('HSET', shard_key(ref), 'due', stamp(due)) end
    end
    call('ZREM', key, ref)
  end
end

-- only those of whom something was learned, granted or changed: to look at a condition is not to write it
local function save()
  for provider in pairs(woken) do wake(provider) end
  for provider in pairs(changed) do
    local raw = cjson.encode(conditions[provider])
    call('SET', P .. 'pv:' .. provider, raw)
    told[#told + 1] = { provider, raw }
  end
end
