#!lua flags=allow-oom
-- {most, silence_s, forbear_s, and what _lane.lua names} -> {recovered, expired, removed, left, suspects = {id, recoveries, alone, id, ...}}
local t = now()
local recovered, expired, removed = 0, 0, 0
local suspects = {}

-- its worker has died: a suspect waits for the lane, any other job goes back to be claimed
local function after_death(id, key, raw, alone)
  local h, history = history_after_death(raw, alone)
  call('HSET', key, 'history', history)
  if is_suspect(h) then
    for _, v in ipairs({ id, h.recoveries, h.alone }) do suspects[#suspects + 1] = v end
    return job_waits(id, t, due_again(h, t))
  end
  call('HDEL', key, 'lane')
  enqueue(id, 'L')
end

local over = forbears(L .. 'reaped', t) and {} or call('ZRANGEBYSCORE', L .. 'leases', '-inf', stamp(t), 'LIMIT', 0, A.most)
for _, id in ipairs(over) do
  local key = job_key(id)
  local j = call('HMGET', key, 'status', 'token', 'holder', 'history', 'lane')
  call('ZREM', L .. 'leases', id)
  if j[1] and not ended(j[1]) and j[2] then
    local dead = died(j[3], t)
    if dead then note_death(j[3]) end
    call('DEL', L .. 'c:' .. j[2], L .. 'hinted')
    call('HDEL', key, 'token')
    if dead then after_death(id, key, j[4], j[5]) else enqueue(id, 'L') end
    recovered = recovered + 1
  end
end
for _, list in ipairs({ L .. 'now', L .. 'soon' }) do -- what was cancelled stands here until somebody claims, or looks
  for _ = 1, A.most do
    local id = call('LINDEX', list, 0)
    local status = id and call('HGET', job_key(id), 'status')
    if not id or (status and not ended(status)) then break end
    call('LPOP', list)
  end
end
local due = call('ZRANGEBYSCORE', L .. 'ends', '-inf', stamp(t), 'LIMIT', 0, A.most)
for _, id in ipairs(due) do
  local status = call('HGET', job_key(id), 'status')
  if status and not ended(status) then
    end_job(id, 'expired', '', t)
    expired = expired + 1
  else
    call('ZREM', L .. 'ends', id)
  end
end
local old = call('ZRANGEBYSCORE', L .. 'kept', '-inf', stamp(t), 'LIMIT', 0, A.most)
for _, id in ipairs(old) do
  forget(id)
  removed = removed + 1
end
tell()
return { recovered, expired, removed, math.max(#over, #due, #old) == A.most and 1 or 0, suspects }
