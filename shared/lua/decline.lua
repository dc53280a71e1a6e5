#!lua flags=allow-oom
-- {ref}: no room for it here
local key, id = shard_key(A.ref)
local s = call('HMGET', key, 'state', 'jobs', 'due')
if s[1] == 'hinted' or (s[1] == 'later' and tonumber(s[3]) <= now()) then
  leave(A.ref, key, id, s[1])
  make_ready(A.ref, key, cjson.decode(s[2]))
end
return 1
