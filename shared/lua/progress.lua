-- {id} -> {queued, running, retrying, retry_at, reason, provider, since, until, jobs, reason, ...}
local key = batch_key(A.id)
local b = call('HMGET', key, 'total', 'cursor', 'status')
if b[3] ~= 'in_progress' then return { 0, 0, 0, '0' } end
local queued, running, retrying, retry_at = tonumber(b[1]) - tonumber(b[2] or '0'), 0, 0, math.huge
local groups, order = {}, {}
for _, number in ipairs(call('SMEMBERS', key .. ':sh')) do
  local s = call('HMGET', key .. ':s:' .. number, 'state', 'n', 'due', 'reason', 'provider', 'parked_since', 'until')
  local n = tonumber(s[2] or '0')
  if s[1] == 'leased' then
    running = running + n
  elseif s[1] ~= 'later' then
    queued = queued + n
  elseif not s[4] then
    retrying, retry_at = retrying + n, math.min(retry_at, tonumber(s[3]))
  else
    local name = s[4] .. ' ' .. s[5]
    if not groups[name] then
      groups[name] = { reason = s[4], provider = s[5], since = math.huge, ends = math.huge, jobs = 0 }
      order[#order + 1] = name
    end
    local g = groups[name]
    g.since, g.ends = math.min(g.since, tonumber(s[6])), math.min(g.ends, tonumber(s[7] or s[3]))
    g.jobs = g.jobs + n
  end
end
local out = { queued, running, retrying, stamp(retrying > 0 and retry_at or 0) }
table.sort(order)
for _, name in ipairs(order) do
  local g = groups[name]
  for _, v in ipairs({ g.reason, g.provider, stamp(g.since), stamp(g.ends), g.jobs }) do out[#out + 1] = v end
end
return out
