-- {jobs = {{spec, caller, body_bytes, once|false}, ...}, v, same_s, hint_timeout_s, overdue_s}
-- blob: the bodies in turn -> {known ('010'), hint, time, {index, id, ...} of those whose idempotency keys have made others before}
local t = now()
local at, known, others = 1, {}, {}
for i, j in ipairs(A.jobs) do
  local spec, caller, size, once = cjson.decode(j[1]), j[2], j[3], j[4]
  local id, key = spec.id, job_key(spec.id)
  local made = earlier(once)
  known[i] = (made or call('EXISTS', key) == 1) and '1' or '0'
  if made and made ~= id then
    others[#others + 1] = i - 1
    others[#others + 1] = made
  end
  if known[i] == '0' then
    local same = same_key(spec)
    if same then
      if caller == '' then call('DEL', same) end -- nobody tells when such a job has been heard of: the latest may be found
      call('SADD', same, id)
      call('EXPIRE', same, A.same_s)
    end
    local expires = stamp(t + spec.window_s)
    call('HSET', key, 'spec', j[1], 'v', A.v, 'status', 'queued', 'created', stamp(t), 'expires', expires, 'callers', caller,
      'body', string.sub(ARGV[3], at, at + size - 1))
    call('ZADD', P .. 'js:' .. spec.owner, 0, id)
    call('ZADD', L .. 'ends', expires, id)
    keep(once, id)
    enqueue(id, 'R')
  end
  at = at + size
end
return { table.concat(known), wants_hint(t) and 1 or 0, stamp(t), others }
