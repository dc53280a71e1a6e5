#!lua flags=allow-oom
-- {id, owner, record, expires_at|false, once|false} -> the id of the file; '' where its idempotency key made something else
local made = earlier(A.once)
if made and made ~= A.id then return made end
local key = P .. 'f:' .. A.id
drop_gone(P .. 'fs:' .. A.owner, function(id) return P .. 'f:' .. id end, now())
call('SET', key, A.record)
call('ZADD', P .. 'fs:' .. A.owner, 0, A.id)
for _, k in ipairs({ key, key .. ':c' }) do
  if A.expires_at then call('EXPIREAT', k, A.expires_at) else call('PERSIST', k) end
end
keep(A.once, A.id)
return A.id
