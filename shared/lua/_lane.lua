-- Stands after _common.lua in the scripts that recover jobs, or hand out suspects: jobs that may be killing their workers.
-- The rules: shared/suspects.py. `suspects` are those that wait, by the time from which on they may run; `lane` names the shard, or the lone
-- job, that is out. Nobody frees the lane: it is taken as long as what it names is in somebody's hands.
local function is_ref(name) return string.find(name, '/', 1, true) end

local function lane_taken()
  local out = call('GET', P .. 'lane')
  if not out then return false end
  if is_ref(out) then
    local s = call('HMGET', (shard_key(out)), 'state', 'lane', 'n')
    return (s[1] == 'hinted' or s[1] == 'leased') and s[2] and tonumber(s[3]) > 0
  end
  local j = call('HMGET', P .. 'j:' .. out, 'token', 'lane')
  return j[1] and j[2]
end

-- whether what stands among the suspects still waits there
local function waits_in_lane(name)
  if is_ref(name) then
    local key, id = shard_key(name)
    return call('HGET', key, 'state') == 'suspect' and call('HGET', batch_key(id), 'closing') == ''
  end
  local j = call('HMGET', P .. 'j:' .. name, 'status', 'token', 'lane')
  return (j[1] == 'queued' or j[1] == 'in_progress') and not j[2] and j[3]
end

-- the suspect that may run now, or nothing
local function next_suspect(t)
  if call('EXISTS', P .. 'suspects') == 0 or lane_taken() then return nil end
  while true do
    local name = call('ZRANGEBYSCORE', P .. 'suspects', '-inf', stamp(t), 'LIMIT', 0, 1)[1]
    if not name or waits_in_lane(name) then return name end
    call('ZREM', P .. 'suspects', name)
  end
end

local function take_lane(name)
  call('ZREM', P .. 'suspects', name)
  call('SET', P .. 'lane', name)
end

local function shard_waits(ref, key, t, due)
  call('HSET', key, 'lane', 1, 'state', 'suspect', 'due', stamp(due),
    'reason', 'suspect', 'provider', '', 'parked_since', stamp(t), 'until', stamp(due))
  call('ZADD', P .. 'suspects', stamp(due), ref)
end

-- back to be hinted at: at once, or when the lane is free
local function make_ready(ref, key, jobs)
  set_jobs(key, jobs)
  if call('HEXISTS', key, 'lane') == 1 then
    local t = now()
    return shard_waits(ref, key, t, t)
  end
  call('HSET', key, 'state', 'ready')
  call('RPUSH', P .. 'ready', ref)
end

-- whether a holder has died; who still beats has lost a lease otherwise, and who said goodbye was being stopped. A: silent_s
local function died(holder, t)
  local beat = tonumber(call('ZSCORE', P .. 'alive', holder) or '')
  if beat and beat >= t - A.silent_s then return false end
  return call('EXISTS', P .. 'left:' .. holder) == 0
end

-- a worker's death, counted once, and before what it held has left it: `deaths` are those of workers that had no suspect
local function note_death(holder)
  if not call('SET', P .. 'death:' .. holder, 1, 'EX', 3600, 'NX') then return end
  if not (lane_taken() and call('GET', P .. 'lane:holder') == holder) then call('INCR', P .. 'deaths') end
end

-- a job's history after the death of its worker; `alone`: it was the lane's only job there
local function history_after_death(raw, alone)
  local h = raw and cjson.decode(raw) or { attempts = 0, since = 0, parked = 0 }
  local deaths = tonumber(call('GET', P .. 'deaths') or '0')
  local counts = alone and (h.deaths or 0) == deaths
  h.recoveries, h.alone, h.deaths = (h.recoveries or 0) + 1, (h.alone or 0) + (counts and 1 or 0), deaths
  return h, cjson.encode(h)
end

-- A: suspect_from, most_alone
local function is_suspect(h) return h.recoveries >= A.suspect_from and h.alone < A.most_alone end

-- A: pauses_s
local function due_again(h, t) return t + A.pauses_s[math.min(h.alone + 1, #A.pauses_s)] end
