-- Stands before gate, behind _limits: shared/window.py, word for word. Only where A.adaptive.
local function limits_calls(candidate)
  for _, limit in ipairs(candidate[6] or none) do
    if limit[2] == 'concurrency' then return true end
  end
  return false
end

-- the window that counts for this candidate
local function window_of(c, candidate) return A.adaptive and c.windows and c.windows[candidate[2]] end

local function window_full(w, target)
  if not w or w.size == 0 then return false end
  local n = in_flight('w:' .. target)
  return n >= 1 and n + 1 > w.size
end

-- reports of this exchange, by target: their calls were in flight until now
local returned

local function back(target)
  if not returned then
    returned = {}
    for _, report in ipairs(A.reports) do returned[report[2][2]] = (returned[report[2][2]] or 0) + 1 end
  end
  return returned[target] or 0
end

local function cut(w, at, n, latency_s)
  if not w then return { cut_at = at, size = 0, best_s = 0 } end
  local usual_s = latency_s > 0 and latency_s or A.window_recently_s
  if at - w.cut_at < math.max(usual_s, A.window_least_s) then return w end
  local base = w.size > 0 and math.min(w.size, n) or n
  return { size = math.max(1, base * A.window_cut), cut_at = at, best_s = w.best_s }
end

local function window_answered(w, at, n, senders, latency_s)
  if w.size == 0 then return at - w.cut_at < A.window_counting_s and w or nil end
  if n < A.window_nearly_full * w.size then return w end
  local best_s = w.best_s > 0 and math.min(w.best_s * A.window_best_drift, latency_s) or latency_s
  if latency_s > A.window_slow * best_s and at - w.cut_at >= math.max(latency_s, A.window_recently_s) then
    return { size = math.max(1, w.size * A.window_slow_cut), cut_at = at, best_s = best_s }
  end
  local size = w.size + 1 / w.size
  return size < A.window_generous * senders and { size = size, cut_at = w.cut_at, best_s = best_s } or nil
end

-- whether a 429 is met by a smaller window alone
local function bears(c, candidate, at)
  if not A.adaptive or limits_calls(candidate) then return false end
  local w = window_of(c, candidate)
  return at - c.answered_at <= math.max(2 * c.latency_s, A.window_recently_s) and (not w or w.size == 0 or w.size > 1)
end

local function adapt(c, candidate, report, at)
  if not A.adaptive or limits_calls(candidate) then return end
  local target, result = candidate[2], report[4]
  local w = c.windows and c.windows[target]
  local narrows = result == 'limited' or (result == 'failed' and A.window_timeouts[report[5]])
  if not narrows and not (w and is_good(result)) then return end
  local n = in_flight('w:' .. target) + back(target)
  c.windows = c.windows or {}
  if narrows then
    c.windows[target] = cut(w, at, n, c.latency_s)
  else
    c.windows[target] = window_answered(w, at, n, senders_of('w:' .. target), c.latency_s)
    if not next(c.windows) then c.windows = nil end
  end
end
