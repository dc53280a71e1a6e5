#!lua flags=allow-oom
-- {ref, token} -> 1, or 0 where the lease was lost
local key, id = shard_key(A.ref)
if not holds(key, A.token) then return 0 end
local rest = pending(id, cjson.decode(call('HGET', key, 'jobs')))
leave(A.ref, key, id, 'leased')
if #rest == 0 or call('HGET', batch_key(id), 'closing') ~= '' then
  drop_shard(A.ref)
else
  make_ready(A.ref, key, rest)
end
close_if_drained(id)
return 1
