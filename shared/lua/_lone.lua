-- Stands before the scripts of lone jobs, after _common.lua. The life of a job: shared/lone.py.
local L = P .. 'lone:'
local news = {}

local function job_key(id) return P .. 'j:' .. id end

-- what its caller asked for (lone.LoneSpec): kept once, as it came
local function spec_of(key) return cjson.decode(call('HGET', key, 'spec')) end

-- the set of equal jobs, or nothing for one that is found by its idempotency key
local function same_key(spec)
  return spec.fingerprint ~= '' and P .. 'same:' .. spec.owner .. ':' .. spec.fingerprint or nil
end

local function ended(status) return status ~= 'queued' and status ~= 'in_progress' end

-- a suspect waits for the lane
local function job_waits(id, t, due)
  local key = job_key(id)
  call('HSET', key, 'lane', 1, 'reason', 'suspect', 'waits_for', '', 'parked_since', stamp(t), 'until', stamp(due))
  call('HDEL', key, 'parked_for')
  call('ZADD', P .. 'suspects', stamp(due), id)
end

-- back to be claimed: those whose callers wait in person go first
local function enqueue(id, side)
  local j = call('HMGET', job_key(id), 'callers', 'lane')
  if j[2] then
    local t = now()
    return job_waits(id, t, t)
  end
  local list = L .. (j[1] ~= '' and 'now' or 'soon')
  if side == 'L' then call('LPUSH', list, id) else call('RPUSH', list, id) end
end

-- jobs that a worker had to leave, and nobody has looked for one of their release of late
local function newer_wait(t) return call('EXISTS', L .. 'newer') > 0 and tonumber(call('GET', L .. 'looked') or '0') <= t end
-- whether the next suspect is a lone job
local function suspect_waits(t)
  local name = next_suspect(t)
  return name ~= nil and not is_ref(name)
end

local function anybody_waits(t)
  return call('EXISTS', L .. 'now', L .. 'soon') > 0 or newer_wait(t)
    or call('ZCOUNT', L .. 'later', '-inf', stamp(t - A.overdue_s)) > 0
    or suspect_waits(t)
end

local function hint_outstanding(t) return tonumber(call('GET', L .. 'hinted') or '0') > t end

-- true where the caller of the script has to send a hint
local function wants_hint(t)
  if hint_outstanding(t) or not anybody_waits(t) then return false end
  call('SET', L .. 'hinted', stamp(t + A.hint_timeout_s))
  return true
end

-- whether any of the callers can still be told something: a process that has died hears nothing
local hearing = {}
local function listens(callers)
  for caller in string.gmatch(callers, '[^,]+') do
    if hearing[caller] == nil then
      hearing[caller] = call('PUBSUB', 'NUMSUB', P .. 'replies:' .. caller)[2] > 0
    end
    if hearing[caller] then return true end
  end
  return false
end

-- a job that has ended leaves nothing behind
local function forget(id)
  call('ZREM', L .. 'kept', id)
  if call('EXISTS', job_key(id)) == 0 then return end
  local spec = spec_of(job_key(id))
  local same = same_key(spec)
  call('DEL', job_key(id))
  call('ZREM', P .. 'js:' .. spec.owner, id)
  if same then call('SREM', same, id) end
end

-- `line` is empty where no answer came; a result stays to be found by its repetition, should the process that hears it be
-- killed before it has passed it on (of a flood of equal requests that were heard, only some stay)
local SAME_HEARD = 64

local function add_news(callers, item)
  for caller in string.gmatch(callers, '[^,]+') do
    news[caller] = news[caller] or {}
    table.insert(news[caller], item)
  end
end

local function end_job(id, status, line, t)
  local key = job_key(id)
  local callers, spec = call('HGET', key, 'callers'), spec_of(key)
  local heard, same = listens(callers), same_key(spec)
  call('HSET', key, 'status', status, 'ended', stamp(t), 'line', line)
  call('HDEL', key, 'body', 'history', 'token', 'reason', 'waits_for', 'parked_for', 'parked_since', 'until', 'lane')
  call('ZREM', L .. 'leases', id)
  call('ZREM', L .. 'later', id)
  call('ZREM', L .. 'newer', id)
  call('ZREM', L .. 'ends', id)
  call('ZADD', L .. 'kept', stamp(t + (heard and spec.delivered_retention_s or spec.retention_s)), id)
  if same and (line == '' or (heard and call('SCARD', same) > SAME_HEARD)) then call('SREM', same, id) end
  add_news(callers, { id, line })
end

local function tell()
  for caller, replies in pairs(news) do call('PUBLISH', P .. 'replies:' .. caller, cmsgpack.pack(replies)) end
end
