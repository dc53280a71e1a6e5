#!lua flags=allow-oom
-- {id, owner, record, expires_at|false}
local key = P .. 'f:' .. A.id
call('SET', key, A.record)
call('ZADD', P .. 'fs:' .. A.owner, 0, A.id)
for _, k in ipairs({ key, key .. ':c' }) do
  if A.expires_at then call('EXPIREAT', k, A.expires_at) else call('PERSIST', k) end
end
return 1
