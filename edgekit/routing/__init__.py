"""Which adapter is a request for?  A router is trained at export, from the rows of the adapters themselves."""
