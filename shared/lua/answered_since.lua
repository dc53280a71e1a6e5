-- {providers, since} -> 1 or 0
for _, provider in ipairs(A.providers) do
  if tonumber(call('HGET', P .. 'served', provider) or '0') > A.since then return 1 end
end
return 0
