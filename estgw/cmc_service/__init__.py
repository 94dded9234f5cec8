"""Full PKI Requests and Responses (RFC 5272) as a service: what the script fullcmc runs on."""
