-- {} -> {jobs accepted that have no outcome yet, average bytes of an answer}
-- Counted from the records that say so anyway: no counter that could drift.
local open = call('ZCARD', P .. 'lone:ends')
for _, id in ipairs(call('ZRANGE', P .. 'windows', 0, -1)) do
  local b = call('HMGET', batch_key(id), 'status', 'lines', 'total', 'completed', 'failed')
  if b[1] == 'validating' then
    open = open + tonumber(b[2] or '0')
  elseif b[1] == 'in_progress' then
    open = open + tonumber(b[3]) - tonumber(b[4]) - tonumber(b[5])
  end
end
return { open, call('GET', P .. 'answer') or '0' }
