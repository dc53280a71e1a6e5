-- Stands before the scripts of lone jobs, after _common.lua. The life of a job: shared/lone.py.
local L = P .. 'lone:'
local news = {}

local function job_key(id) return P .. 'j:' .. id end

local function ended(status) return status ~= 'queued' and status ~= 'in_progress' end

-- back to be claimed: those whose callers wait in person go first
local function enqueue(id, side)
  local waited = call('HGET', job_key(id), 'callers') ~= ''
  local list = L .. (waited and 'now' or 'soon')
  if side == 'L' then call('LPUSH', list, id) else call('RPUSH', list, id) end
end

local function anybody_waits(t)
  return call('EXISTS', L .. 'now', L .. 'soon') > 0
    or call('ZCOUNT', L .. 'later', '-inf', stamp(t - A.overdue_s)) > 0
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
  local j = call('HMGET', job_key(id), 'spec', 'same')
  call('DEL', job_key(id))
  call('ZREM', L .. 'kept', id)
  if not j[1] then return end
  call('ZREM', P .. 'js:' .. cjson.decode(j[1]).owner, id)
  if j[2] ~= '' then call('SREM', j[2], id) end
end

-- `line` is empty where no answer came; a result stays to be found by its repetition, should the process that hears it be
-- killed before it has passed it on (of a flood of equal requests that were heard, only some stay)
local SAME_HEARD = 64

local function end_job(id, status, line, t)
  local key = job_key(id)
  local j = call('HMGET', key, 'callers', 'keep_s', 'delivered_s', 'same')
  local heard = listens(j[1])
  call('HSET', key, 'status', status, 'ended', stamp(t), 'line', line, 'token', '')
  call('HDEL', key, 'body', 'history')
  call('ZREM', L .. 'leases', id)
  call('ZREM', L .. 'later', id)
  call('ZREM', L .. 'ends', id)
  call('ZADD', L .. 'kept', stamp(t + tonumber(heard and j[3] or j[2])), id)
  if j[4] ~= '' and (line == '' or (heard and call('SCARD', j[4]) > SAME_HEARD)) then call('SREM', j[4], id) end
  for caller in string.gmatch(j[1], '[^,]+') do
    news[caller] = news[caller] or {}
    table.insert(news[caller], { id, line })
  end
end

local function tell()
  for caller, replies in pairs(news) do call('PUBLISH', P .. 'replies:' .. caller, cmsgpack.pack(replies)) end
end
