-- chunks of an upload
return put()
