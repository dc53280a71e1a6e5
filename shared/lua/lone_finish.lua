#!lua flags=allow-oom
-- {writer, serial, outcomes = {{id, ok, line}, ...}, served, writer_ttl_s, overdue_s} -> msgpack as finish.lua's
local writer = P .. 'wr:' .. A.writer
local w = call('HMGET', writer, 'serial', 'reply')
if w[1] and tonumber(w[1]) == A.serial then return w[2] end
local t = now()
local accepted, answers, bytes = {}, 0, 0
for i, o in ipairs(A.outcomes) do
  local id, ok, line = o[1], o[2], o[3]
  local status = call('HGET', job_key(id), 'status')
  accepted[i] = '0'
  if status and not ended(status) then
    end_job(id, ok and 'completed' or 'failed', line, t)
    accepted[i] = '1'
    if ok then answers, bytes = answers + 1, bytes + #line end
  end
end
average_answers(answers, bytes)
note_served()
tell()
local reply = cmsgpack.pack({
  accepted = table.concat(accepted), segments = '', open = true, hungry = anybody_waits(t) and not hint_outstanding(t),
})
call('HSET', writer, 'serial', A.serial, 'reply', reply)
call('EXPIRE', writer, A.writer_ttl_s)
return reply
