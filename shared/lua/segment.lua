-- {id, segment, first, last} -> {states, {job, line, ...}, places, rolled up}
-- A batch may end, or be rolled up, between two reads; a transaction would be refused while memory is full.
local key = batch_key(A.id)
return {
  call('GETRANGE', key .. ':st', A.first, A.last),
  call('HGETALL', key .. ':r:' .. A.segment),
  call('GETRANGE', key .. ':ix', A.first * 8, A.last * 8 + 7),
  call('GETBIT', key .. ':ru', A.segment),
}
