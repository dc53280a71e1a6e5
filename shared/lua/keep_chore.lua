#!lua flags=allow-oom
-- {id, token, lease_s} -> 1 or 0
if not has_chore(A.id, A.token) or not call('ZSCORE', P .. 'chores', A.id) then return 0 end
call('ZADD', P .. 'chores', stamp(now() + A.lease_s), A.id)
return 1
