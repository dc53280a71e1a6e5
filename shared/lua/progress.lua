-- {id, heartbeat_timeout_s} -> {queued, running, retrying, retry_at, reason, provider, since, until, jobs, reason, ...}
local key = batch_key(A.id)
local b = call('HMGET', key, 'total', 'cursor', 'status')
if b[3] ~= 'in_progress' then return { 0, 0, 0, '0' } end
local queued, running, retrying, retry_at = tonumber(b[1]) - tonumber(b[2] or '0'), 0, 0, math.huge
local groups, order, t = {}, {}, now()

local function wait(reason, provider, since, ends, n)
  local name = reason .. ' ' .. provider
  if not groups[name] then
    groups[name] = { reason = reason, provider = provider, since = math.huge, ends = math.huge, jobs = 0 }
    order[#order + 1] = name
  end
  local g = groups[name]
  g.since, g.ends, g.jobs = math.min(g.since, since), math.min(g.ends, ends), g.jobs + n
end

-- when its holder was last heard of, where that is long ago: it has died, and nobody has looked yet; false of a worker that beats
local function silent_since(ref, holder, claimed_at)
  local heard = tonumber(call('ZSCORE', P .. 'alive', holder) or claimed_at)
  return heard + A.heartbeat_timeout_s <= t and heard
end

for _, number in ipairs(call('SMEMBERS', key .. ':sh')) do
  local s = call('HMGET', key .. ':s:' .. number, 'state', 'n', 'due', 'reason', 'provider', 'parked_since', 'until', 'holder', 'claimed_at')
  local n = tonumber(s[2] or '0')
  if s[1] == 'leased' then
    local ref = A.id .. '/' .. number
    local since = silent_since(ref, s[8], s[9])
    if since then
      wait('worker_silent', '', since, tonumber(call('ZSCORE', P .. 'leases', ref) or t), n)
    else
      running = running + n
    end
  elseif s[1] ~= 'later' and s[1] ~= 'suspect' then
    queued = queued + n
  elseif not s[4] then
    retrying, retry_at = retrying + n, math.min(retry_at, tonumber(s[3]))
  else
    wait(s[4], s[5], tonumber(s[6]), tonumber(s[7] or s[3]), n)
  end
end
local out = { queued, running, retrying, stamp(retrying > 0 and retry_at or 0) }
table.sort(order)
for _, name in ipairs(order) do
  local g = groups[name]
  for _, v in ipairs({ g.reason, g.provider, stamp(g.since), stamp(g.ends), g.jobs }) do out[#out + 1] = v end
end
return out
