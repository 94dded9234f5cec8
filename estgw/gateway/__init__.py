"""The gateway: requests over TLS, and the scripts that answer them."""
