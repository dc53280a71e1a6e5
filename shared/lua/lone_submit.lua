-- {jobs = {{id, owner, spec, endpoint, fingerprint, window_s, keep_s, delivered_s, caller, body_bytes, once|false}, ...}, same_s, hint_timeout_s, overdue_s}
-- blob: the bodies in turn -> {known ('010'), hint, time, {index, id, ...} of those whose idempotency keys have made others before}
local t = now()
local at, known, others = 1, {}, {}
for i, j in ipairs(A.jobs) do
  local id, caller, key = j[1], j[9], job_key(j[1])
  local made = earlier(j[11])
  known[i] = (made or call('EXISTS', key) == 1) and '1' or '0'
  if made and made ~= id then
    others[#others + 1] = i - 1
    others[#others + 1] = made
  end
  if known[i] == '0' then
    local same = ''
    if j[5] ~= '' then
      same = P .. 'same:' .. j[2] .. ':' .. j[5]
      if caller == '' then call('DEL', same) end -- nobody tells when such a job has been heard of: the latest may be found
      call('SADD', same, id)
      call('EXPIRE', same, A.same_s)
    end
    call('HSET', key, 'spec', j[3], 'endpoint', j[4], 'status', 'queued', 'created', stamp(t), 'expires', stamp(t + j[6]),
      'keep_s', j[7], 'delivered_s', j[8], 'callers', caller, 'same', same, 'token', '',
      'body', string.sub(ARGV[3], at, at + j[10] - 1))
    call('ZADD', P .. 'js:' .. j[2], 0, id)
    call('ZADD', L .. 'ends', stamp(t + j[6]), id)
    keep(j[11], id)
    enqueue(id, 'R')
  end
  at = at + j[10]
end
return { table.concat(known), wants_hint(t) and 1 or 0, stamp(t), others }
