#!lua flags=allow-oom
-- {provider, action, target, settings, wake_s, wake_most} -> msgpack of the changes (shared/gate.py: Change)
local c = condition_of(A.provider)
if A.action ~= 'wake' then changed[A.provider] = true end
if A.action == 'enable' or A.action == 'disable' or A.action == 'drain' then
  c.disabled = A.action ~= 'enable'
  c.drain_since = A.action == 'drain' and (c.drain_since or t) or nil
end
if A.action == 'enable' then
  c.refusals, c.cool_downs, c.windows = {}, {}, nil
  woken[A.provider] = true
end
if A.action == 'wake' then woken[A.provider] = true end
local targets = {}
if A.target ~= '' then targets[1] = A.target else for target in pairs(c.breakers) do targets[#targets + 1] = target end end
if #targets == 0 then targets[1] = A.provider end
table.sort(targets)
for _, target in ipairs(targets) do
  local b = circuit_of(c, target)
  local before = b.state
  if A.action == 'open' then
    open(b, t, 'opened by hand', 0)
  elseif A.action == 'close' then
    close(b, t)
  elseif A.action == 'half_open' or (A.action == 'enable' and b.state == 'open') then
    half_open(b, t)
  end
  note(A.provider, c, target, b, before)
end
save()
return cmsgpack.pack(changes)
