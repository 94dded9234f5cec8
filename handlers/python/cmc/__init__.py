"""What fullcmc rests on: Full PKI Requests and Responses (RFC 5272), for the CA in EST_CA_DIR.  Not programs."""
