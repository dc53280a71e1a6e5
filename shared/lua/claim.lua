-- {ref, holder, lease_s, tolerance_s, reads, look_again_s} -> {token, claimed_at, spec, expires_at, job, place, history, job, ...}, nothing, or the
-- version of the batch, where that is newer than the worker reads
local t = now()
local key, id = shard_key(A.ref)
local s = call('HMGET', key, 'state', 'jobs', 'due', 'lane')
local state = s[1]
if not state or state == 'leased' then return false end
if s[4] and state ~= 'hinted' then return false end -- a suspect waits for its turn
if state == 'later' and tonumber(s[3]) > t + A.tolerance_s then return false end
local batch = batch_key(id)
local b = call('HMGET', batch, 'status', 'closing', 'spec', 'expires_at', 'v')
local jobs = {}
if b[1] == 'in_progress' and b[2] == '' then jobs = pending(id, cjson.decode(s[2])) end
leave(A.ref, key, id, state)
if #jobs == 0 then
  drop_shard(A.ref)
  return false
end
set_jobs(key, jobs)
local version = tonumber(b[5] or '1')
if version > A.reads then
  leave_to_newer(A.ref, key, t)
  return version
end
local token = call('HINCRBY', batch, 'token', 1)
call('HSET', key, 'state', 'leased', 'token', token, 'holder', A.holder, 'claimed_at', stamp(t))
if s[4] then call('SET', P .. 'lane:holder', A.holder) end
call('ZADD', P .. 'leases', stamp(t + A.lease_s), A.ref)
call('HINCRBY', batch, 'leases', 1)
call('INCRBY', P .. 'load', #jobs)
local out = { token, stamp(t), b[3], b[4] }
for _, job in ipairs(jobs) do
  out[#out + 1] = job
  out[#out + 1] = call('GETRANGE', batch .. ':ix', job * 8, job * 8 + 7)
  out[#out + 1] = call('HGET', batch .. ':at', job)
end
return out
