# shellcheck shell=bash
# shellcheck disable=SC2034
# What simpleenroll, simplereenroll and serverkeygen share, so that a renewal gets what the first certificate got.

#### Policy: edit me, then enrol again ####
profile=client # what the certificate is good for: a file in openssl-ca/profiles
lifetime=90d   # s, m, h or d; a certificate never outlives the CA
# profile=server lifetime=10m
