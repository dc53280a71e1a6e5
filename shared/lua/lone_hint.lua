-- {hint_timeout_s, overdue_s} -> 1 where the caller has to send a hint
return wants_hint(now()) and 1 or 0
