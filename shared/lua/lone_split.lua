#!lua flags=allow-oom
-- {token, jobs, delay_s, kind, provider, charged, anew, reason, wait_for, serves_s, blocked, tries, most_tries, claimed_at, asked_at, soon_s}
-- -> how many left the claim to wait for their due time; callers hear of what may last
local t = now()
local moved = 0
for i, id in ipairs(A.jobs) do
  local key = job_key(id)
  local j = call('HMGET', key, 'status', 'token', 'started', 'history', 'parked_since', 'callers', 'parked_for')
  if j[1] and not ended(j[1]) and tonumber(j[2]) == A.token then
    local due = due_after(t)
    local history = history_after(j[4], A.claimed_at > 0 and A.claimed_at or tonumber(j[3]), A.tries[i] or {})
    if history then call('HSET', key, 'history', history) end
    call('HDEL', key, 'token')
    if not A.blocked then call('HDEL', key, 'lane') end -- it was tried, and killed nobody
    call('ZREM', L .. 'leases', id)
    call('ZADD', L .. 'later', stamp(due), id)
    if A.reason == '' then
      call('HDEL', key, 'parked_for') -- it is called in between
    else
      local provider = A.provider ~= '' and A.provider or A.wait_for[1] or ''
      local why = A.reason .. ' ' .. provider
      local since = j[7] == why and tonumber(j[5]) or t
      local lasts_s = math.max(A.delay_s, A.serves_s)
      call('HSET', key, 'reason', A.reason, 'waits_for', provider, 'parked_for', why, 'parked_since', stamp(since), 'until', stamp(t + lasts_s))
      await(id, due)
      add_news(j[6], { id, '', cjson.encode({ reason = A.reason, provider = provider, since = since, ['until'] = t + lasts_s, jobs = 1, lasts_s = lasts_s }) })
    end
    moved = moved + 1
  end
end
tell()
return moved
