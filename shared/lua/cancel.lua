#!lua flags=allow-oom
-- {id, grace_s, errors|false} -> 1 where the batch is cancelling now. With errors it has come to its max_cost
local key = batch_key(A.id)
local status = call('HGET', key, 'status')
if status == 'validating' or status == 'in_progress' or status == 'finalizing' then
  call('HSET', key, 'status', 'cancelling', 'cancelling_at', math.floor(now()))
  if A.errors then call('HSET', key, 'errors', A.errors) end
  begin_closing(A.id, A.errors and 'overspent' or 'cancelled', A.grace_s)
  return 1
end
return 0
