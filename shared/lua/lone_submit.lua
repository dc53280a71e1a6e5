-- {jobs = {{id, owner, spec, endpoint, fingerprint, window_s, keep_s, delivered_s, caller, body_bytes}, ...}, same_s, hint_timeout_s, overdue_s}
-- blob: the bodies in turn -> {known ('010'), hint, time}
local t = now()
local at, known = 1, {}
for i, j in ipairs(A.jobs) do
  local id, caller, key = j[1], j[9], job_key(j[1])
  known[i] = call('EXISTS', key) == 1 and '1' or '0'
  if known[i] == '0' then
    local same = ''
    if j[5] ~= '' then
      same = P .. 'same:' .. j[2] .. ':' .. j[5]
      call('SADD', same, id)
      call('EXPIRE', same, A.same_s)
    end
    call('HSET', key, 'spec', j[3], 'endpoint', j[4], 'status', 'queued', 'created', stamp(t), 'expires', stamp(t + j[6]),
      'keep_s', j[7], 'delivered_s', j[8], 'callers', caller, 'same', same, 'token', '',
      'body', string.sub(ARGV[3], at, at + j[10] - 1))
    call('ZADD', P .. 'js:' .. j[2], 0, id)
    call('ZADD', L .. 'ends', stamp(t + j[6]), id)
    enqueue(id, 'R')
  end
  at = at + j[10]
end
return { table.concat(known), wants_hint(t) and 1 or 0, stamp(t) }
