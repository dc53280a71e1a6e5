#!lua flags=allow-oom
-- chunks of answers: their room was promised with their jobs
return put()
