"""Settings of simpleenroll, simplereenroll, serverkeygen and fullcmc: a renewal gets what the first certificate got.

Not a program.
"""

#### Policy: edit me, then enrol again ####
profile = "client"  # what the certificate is good for: a row of PROFILES in ca.py
lifetime = "90d"  # s, m, h or d; a certificate never outlives the CA
# profile, lifetime = "server", "10m"
