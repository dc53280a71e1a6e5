#!lua flags=allow-oom
-- {id, seconds, chunks = {{number, bytes}, ...}}, blob: the chunks in turn. Answers: their room was promised with their jobs
local key = P .. 'f:' .. A.id
local at = 1
for _, chunk in ipairs(A.chunks) do
  call('HSET', key .. ':c', chunk[1], string.sub(ARGV[3], at, at + chunk[2] - 1))
  at = at + chunk[2]
end
if call('EXISTS', key) == 0 then call('EXPIRE', key .. ':c', A.seconds) end
return 1
