#!lua flags=allow-oom
-- {sender, serial, sender_ttl_s, settings, spread, slot_s, slots, window_s, alpha, cool_s, most_cool_s, most_rest_s, breaker_slots, wake_s, wake_most,
--  silent_s, busy_s, busy_spread_s, money_kept_s, ended_kept_s, window_..., held = {scope = calls}, adaptive,
--  tokens_window, tokens_most,
--  reports = {{permit, candidate, generation, result, code, message, duration_s, bucket, retry_after_s, age_s, limits, used, rest_s, output_tokens, lesson}, ...},
--  asks = {{permit, {{provider, target, key, model, offer, limits}, ...}, limits}, ...}}   limits: {{scope, kind, amount, ceiling}, ...} or nothing
--  lesson: {estimated, answers, input_tokens, output_tokens} or nothing
-- -> msgpack {now, verdicts, charged, changes, {{provider, condition as JSON}, ...}} (shared/gate.py: Exchanged)
local sender = P .. 'gs:' .. A.sender
local last = call('HMGET', sender, 'serial', 'reply', 'scopes')
if last[1] and tonumber(last[1]) == A.serial then return last[2] end

-- of the key and, where it is named, of the model
local function scopes_of(candidate)
  local key = 'key:' .. candidate[3]
  return candidate[4] ~= '' and { key, 'model:' .. candidate[4] .. '@' .. candidate[5] } or { key }
end

local function drop_forgotten(c, at)
  for scope, refusal in pairs(c.refusals) do
    if refusal.probe_at + S.out_of_service_probe_s <= at then c.refusals[scope] = nil end
  end
end

local function ema(before, value) return before + A.alpha * (value - before) end

-- by key and name of what is counted: each is written once
local slots = {}

local function add(slot, name) slot[name] = (slot[name] or 0) + 1 end

local function count(report, at)
  local good = is_good(report[4])
  local key = P .. 'sk:' .. report[2][1] .. ':' .. string.format('%d', math.floor(at / A.slot_s))
  local slot = slots[key] or {}
  slots[key] = slot
  add(slot, good and 'answered' or 'failed')
  if good then add(slot, string.format('%d', report[8])) end
end

local function save_counts()
  for key, slot in pairs(slots) do
    for name, n in pairs(slot) do call('HINCRBY', key, name, n) end
    call('EXPIRE', key, A.window_s * 2)
  end
end

local function cool(c, target, at, wait_s)
  local known = c.cool_downs[target]
  local fresh = not known or known['until'] <= at
  local times = (known and known.times or 0) + (fresh and 1 or 0)
  local ends = known and known['until'] or at
  if wait_s >= 0 then
    ends = math.max(known and known['until'] or 0, at + wait_s)
  elseif fresh then
    ends = at + math.min(A.cool_s * 2 ^ math.min(times - 1, 16), A.most_cool_s)
  end
  c.cool_downs[target] = { ['until'] = ends, times = times }
end

-- its headers said that nothing is left until then: no 429, and it does not count as one
local function rest(c, target, ends)
  local known = c.cool_downs[target] or { ['until'] = 0, times = 0 }
  c.cool_downs[target] = { ['until'] = math.max(known['until'], ends), times = known.times }
end

-- the call shows that these are served again, unless it began before they were refused
local function reinstate(c, candidate, report, at, scopes)
  for _, scope in ipairs(next(c.refusals) and scopes or {}) do
    local refusal = c.refusals[scope]
    if refusal and refusal.since <= at - report[7] then
      c.refusals[scope] = nil
      woken[candidate[1]] = true  -- even where a long call outlasted the refusal: some wait for it yet
    end
  end
  drop_forgotten(c, at)
end

-- shared/tokens.py: entry_of and Learned.after, with {calls, estimated, input_tokens, output_tokens}
local function teach(c, model, lesson)
  local name = model ~= '' and (c.tokens[model] or count_of(c.tokens) < A.tokens_most) and model or '*'
  local known = c.tokens[name] or { 0, 0, 0, 0 }
  local share = 1 / math.min(known[1] + 1, A.tokens_window)
  local function moved(before, value) return before + share * (value - before) end
  c.tokens[name] = {
    known[1] + 1, moved(known[2], lesson[1]), moved(known[3], lesson[3]), moved(known[4], lesson[4] / lesson[2]),
  }
end

local function answered(c, candidate, report, at)
  local first, took, tokens = c.answered_at == 0, report[7], report[14]
  c.calls, c.consecutive_failures = c.calls + 1, 0
  c.success_rate = ema(c.success_rate, 1)
  c.latency_s = first and took or ema(c.latency_s, took)
  c.latest_s = took
  if tokens > 0 then
    local known = c.per_token_s or 0
    c.per_token_s = (known > 0 and took > 0) and ema(known, took / tokens) or took / tokens
  end
  c.answered_at = math.max(c.answered_at, at)
  if report[15] then teach(c, candidate[4], report[15]) end
  local known = c.cool_downs[candidate[2]]
  if known and known['until'] <= t then c.cool_downs[candidate[2]] = nil end
  reinstate(c, candidate, report, at, scopes_of(candidate))
end

local function health(c, candidate, report, at)
  local result = report[4]
  if result == 'nothing' or (result == 'model' and candidate[4] == '') then return end
  count(report, at)
  if is_good(result) then return answered(c, candidate, report, at) end
  c.calls, c.failures, c.consecutive_failures = c.calls + 1, c.failures + 1, c.consecutive_failures + 1
  c.success_rate = ema(c.success_rate, 0)
  c.last_error = { code = report[5], message = report[6], at = at }
  if result == 'failed' then
    if report[9] >= 0 then rest(c, candidate[2], at + math.min(report[9], A.most_rest_s)) end
    return
  end
  if result ~= 'key' then reinstate(c, candidate, report, at, { scopes_of(candidate)[1] }) end -- the key was taken
  if result == 'limited' and (report[9] >= 0 or not bears(c, candidate, at)) then cool(c, candidate[2], at, report[9]) end
  if result == 'key' or result == 'model' then
    local scope = scopes_of(candidate)[result == 'key' and 1 or 2]
    drop_forgotten(c, at)
    local known = c.refusals[scope]
    c.refusals[scope] = {
      code = report[5], message = report[6], since = known and known.since or at, probe_at = at + S.out_of_service_probe_s,
    }
  end
end

local function learn(report)
  local candidate, age = report[2], report[10]
  settle_limits(candidate[6], report[12])
  settle_limits(report[11], report[12])
  local c = condition_of(candidate[1])
  local b = circuit_of(c, candidate[2])
  local charged = b.state == 'closed' and b.generation == report[3]
  if age > A.window_s then return charged end
  local at, before = t - age, b.state
  changed[candidate[1]] = true
  settle(b, at, report[1], report[3], report[4], report[5], A.spread)
  note(candidate[1], c, candidate[2], b, before)
  health(c, candidate, report, at)
  adapt(c, candidate, report, at)
  if report[13] then rest(c, candidate[2], at + report[13]) end
  return charged
end

local function kept_out(c, candidate)
  if c.disabled then return { candidate[1], 'disabled', 0, '' } end
  for i, scope in ipairs(next(c.refusals) and scopes_of(candidate) or {}) do
    local refusal = c.refusals[scope]
    if refusal and t < refusal.probe_at then
      return { candidate[1], i == 1 and 'key_refused' or 'model_refused', refusal.probe_at, refusal.code }
    end
  end
  local cooling = c.cool_downs[candidate[2]]
  if cooling and t < cooling['until'] then return { candidate[1], 'rate_limited', cooling['until'], '' } end
end

local function judge(ask)
  local blocks = {}
  for i, candidate in ipairs(ask[2]) do
    local c = condition_of(candidate[1])
    local block = kept_out(c, candidate)
    if block then
      blocks[#blocks + 1] = block
    else
      local b = circuit_of(c, candidate[2])
      local before = b.state
      local granted, probe, ends = admit(b, ask[1])
      note(candidate[1], c, candidate[2], b, before)
      if b.state == 'half-open' then changed[candidate[1]] = true end
      local full = granted and (candidate[6] or ask[3]) and at_limit(ask[3], candidate, at_limit(candidate[6], candidate))
      local w = granted and not limits_calls(candidate) and window_of(c, candidate)
      if w and not full and window_full(w, candidate[2]) then
        full = { candidate[1], 'limit_reached', busy_until, 'concurrency', 'w:' .. candidate[2] }
      end
      if full then
        b.probes[ask[1]] = nil  -- the breaker let it, a limit did not: a probe is not spent on it
        blocks[#blocks + 1] = full
      elseif granted then
        take(candidate[6])
        take(ask[3])
        if w then take_call('w:' .. candidate[2]) end
        for _, scope in ipairs(next(c.refusals) and scopes_of(candidate) or {}) do
          if c.refusals[scope] then
            c.refusals[scope].probe_at = t + math.min(S.probe_lease_s, S.out_of_service_probe_s)
            probe, changed[candidate[1]] = true, true
          end
        end
        return { i - 1, b.generation, probe, blocks }
      end
      if not granted then
        blocks[#blocks + 1] =
          { candidate[1], b.state == 'half-open' and 'breaker_half_open' or 'breaker_open', ends, b.reason }
      end
    end
  end
  return { -1, 0, false, blocks }
end

local charged, verdicts = {}, {}
for i, report in ipairs(A.reports) do charged[i] = learn(report) end
for i, ask in ipairs(A.asks) do verdicts[i] = judge(ask) end
save()
save_counts()
save_flights(sender, last[3])
local reply = cmsgpack.pack({ t, verdicts, charged, changes, told })
call('HSET', sender, 'serial', A.serial, 'reply', reply)
call('EXPIRE', sender, A.sender_ttl_s)
return reply
