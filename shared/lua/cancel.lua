#!lua flags=allow-oom
-- {id, grace_s} -> 1 where the batch is cancelling now
local key = batch_key(A.id)
local status = call('HGET', key, 'status')
if status == 'validating' or status == 'in_progress' or status == 'finalizing' then
  call('HSET', key, 'status', 'cancelling', 'cancelling_at', math.floor(now()))
  begin_closing(A.id, 'cancelled', A.grace_s)
  return 1
end
return 0
