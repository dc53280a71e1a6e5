#!lua flags=allow-oom
-- {id, token, first, last} -> 1 or 0: what is pending ends as the batch does
local key = batch_key(A.id)
if not has_chore(A.id, A.token) then return 0 end
local b = call('HMGET', key, 'closing', 'status')
if b[1] == '' or (b[2] ~= 'cancelling' and b[2] ~= 'finalizing') then return 0 end
local states = call('GETRANGE', key .. ':st', A.first, A.last)
local sealed, count = string.gsub(states, 'p', ({ expired = 'x', overspent = 'm' })[b[1]] or 'c')
if count > 0 then
  call('SETRANGE', key .. ':st', A.first, sealed)
  call('HINCRBY', key, 'failed', count)
end
return 1
