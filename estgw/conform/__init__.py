"""`estgw conform`: is this EST server what RFC 7030 says?  One table of cases, and reports in four forms."""
