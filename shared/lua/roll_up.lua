#!lua flags=allow-oom
-- {id, segment, first, last, output = {lines, bytes}, errors = {lines, bytes}} -> 1 or 0
local key = batch_key(A.id)
local states = call('GETRANGE', key .. ':st', A.first, A.last)
if states == '' or string.find(states, 'p', 1, true) then return 0 end
if call('SETBIT', key .. ':ru', A.segment, 1) == 1 then return 0 end
call('DEL', key .. ':r:' .. A.segment)
call('HINCRBY', key, 'output_lines', A.output[1])
call('HINCRBY', key, 'output_bytes', A.output[2])
call('HINCRBY', key, 'error_lines', A.errors[1])
call('HINCRBY', key, 'error_bytes', A.errors[2])
return 1
