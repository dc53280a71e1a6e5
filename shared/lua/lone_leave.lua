#!lua flags=allow-oom
-- {id, caller, cancel, same_s}; who leaves as the result comes has not heard it: it stays to be found by its repetition
local key = job_key(A.id)
local j = call('HMGET', key, 'status', 'callers', 'line', 'polled', 'token')
if not j[1] then return 0 end
local rest = {}
for caller in string.gmatch(j[2], '[^,]+') do
  if caller ~= A.caller then rest[#rest + 1] = caller end
end
call('HSET', key, 'callers', table.concat(rest, ','))
if ended(j[1]) then
  local same = same_key(spec_of(key))
  if same and j[3] ~= '' then
    call('SADD', same, A.id)
    call('EXPIRE', same, A.same_s)
  end
  return 0
end
if #rest == 0 and A.cancel and not j[4] then -- in a worker's hands it ends when that would call it
  if not j[5] then end_job(A.id, 'cancelled', '', now()) else call('HSET', key, 'unwanted', 1) end
end
return 1
