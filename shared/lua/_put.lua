-- Stands before put and put_promised.
-- {id, seconds, chunks = {{number, bytes}, ...}}, blob: the chunks in turn; those of a file that is never published go by themselves
local function put()
  local key = P .. 'f:' .. A.id
  local at = 1
  for _, chunk in ipairs(A.chunks) do
    call('HSET', key .. ':c', chunk[1], string.sub(ARGV[3], at, at + chunk[2] - 1))
    at = at + chunk[2]
  end
  if call('EXISTS', key) == 0 then call('EXPIRE', key .. ':c', A.seconds) end
  return 1
end
