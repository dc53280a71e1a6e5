-- Stands before gate, behind _gate: the arithmetic of shared/limits.py and shared/memory_limits.py, word for word.
-- Rates and money are one number each; calls in flight a hash for each scope: sender -> its calls, and when it was heard of.
local none = {}
local busy_until = t + A.busy_s + A.busy_spread_s * A.spread
local held = A.held or none
local numbers, flights, heard, own = {}, {}, {}, {}

local function number_key(limit) return P .. 'lm:' .. limit[2] .. ':' .. limit[1] end

local function number_of(key)
  local n = numbers[key]
  if not n then
    n = tonumber(call('GET', key) or '0')
    numbers[key] = n
  end
  return n
end

-- calls of all senders that are heard of, this exchange's grants included
local function in_flight(scope)
  local others = flights[scope]
  if not others then
    others, heard[scope] = 0, 1
    local key = P .. 'fl:' .. scope
    local all = call('HGETALL', key)
    for i = 1, #all, 2 do
      local n, at = string.match(all[i + 1], '^(%d+) (%S+)$')
      if tonumber(at) + A.silent_s <= t then
        call('HDEL', key, all[i])
      elseif all[i] ~= A.sender then
        others, heard[scope] = others + tonumber(n), heard[scope] + 1
      end
    end
    flights[scope] = others
  end
  return others + (own[scope] or held[scope] or 0)
end

-- how many have calls there, this one included; after in_flight
local function senders_of(scope) return heard[scope] end

-- when the call may begin, nil where it may at once
local function refused_until(limit)
  local kind, amount, ceiling = limit[2], limit[3], limit[4]
  if kind == 'concurrency' then
    if in_flight(limit[1]) + amount <= ceiling then return nil end
    return busy_until
  end
  local n = number_of(number_key(limit))
  if kind == 'money' then
    if n + amount <= ceiling then return nil end
    return in_flight(limit[1]) > 0 and busy_until or 0 -- what is under way is reserved at its worst, and may leave some
  end
  local bucket = math.max(1, 60 / ceiling)
  local at = n + math.min(amount * 60 / ceiling, bucket) - bucket
  if at > t then return at end
end

-- of several limits money first, for that takes a person; then the one that lasts longest
local function at_limit(limits, candidate, found)
  for _, limit in ipairs(limits or none) do
    local ends = refused_until(limit)
    if ends == 0 then return { candidate[1], 'budget_spent', 0, limit[1], limit[1] } end
    if ends and (not found or (found[3] > 0 and ends > found[3])) then
      found = { candidate[1], 'limit_reached', ends, limit[2], limit[1] }
    end
  end
  return found
end

-- of a rate no call takes more than a minute's worth
local function counts_as(amount, limit) return limit[2] == 'money' and amount or math.min(amount, limit[4]) end

-- what a batch has spent is asked for a day after its end at most: its states (:st) are there until then
local function money_lasts(scope)
  local batch = string.match(scope, '^batch:(.+)$')
  return batch and call('EXISTS', batch_key(batch) .. ':st') == 0 and A.ended_kept_s or A.money_kept_s
end

local function add(limit, amount)
  local key = number_key(limit)
  local n = number_of(key)
  if limit[2] == 'money' then
    n = math.max(0, n + amount)
    if n > 0 then call('SET', key, string.format('%.17g', n), 'EX', money_lasts(limit[1])) else call('DEL', key) end
  else
    n = (amount < 0 and n or math.max(n, t)) + amount * 60 / limit[4]
    call('SET', key, string.format('%.17g', n), 'EX', math.min(math.max(1, math.ceil(n - t)), A.money_kept_s))
  end
  numbers[key] = n
end

local function take_call(scope) own[scope] = (own[scope] or held[scope] or 0) + 1 end

local function take(limits)
  for _, limit in ipairs(limits or none) do
    if limit[2] == 'concurrency' or limit[2] == 'money' then take_call(limit[1]) end
    if limit[2] ~= 'concurrency' then add(limit, counts_as(limit[3], limit)) end
  end
end

-- after the call: what was used takes the place of the estimate, as far as it is known
local function settle_limits(limits, used)
  if not used then return end
  for _, limit in ipairs(limits or none) do
    if limit[2] ~= 'concurrency' and used[limit[2]] then
      add(limit, counts_as(used[limit[2]], limit) - counts_as(limit[3], limit))
    end
  end
end

-- calls are counted by target (w:TARGET) only where there is a window; one that was not looked at is as it was
local function is_counted(scope, was)
  local target = string.match(scope, '^w:(.*)$')
  if not target then return true end
  local c = conditions[string.match(target, '^[^|]*')]
  if not c then return was end
  return A.adaptive and c.windows and c.windows[target]
end

-- the sender's own are told anew each time: what it had before and has no more goes. `before`: the scopes where it had some
local function save_flights(key_of_sender, before)
  local was = {}
  for _, scope in ipairs(before and cjson.decode(before) or none) do was[scope] = true end
  for scope, n in pairs(held) do
    if is_counted(scope, was[scope]) then own[scope] = own[scope] or n end
  end
  for scope in pairs(was) do
    if not own[scope] then call('HDEL', P .. 'fl:' .. scope, A.sender) end
  end
  local scopes = {}
  for scope, n in pairs(own) do
    local key = P .. 'fl:' .. scope
    call('HSET', key, A.sender, string.format('%d %.6f', n, t))
    call('EXPIRE', key, math.ceil(A.silent_s * 2))
    scopes[#scopes + 1] = scope
  end
  if before or scopes[1] then call('HSET', key_of_sender, 'scopes', cjson.encode(scopes)) end
end
