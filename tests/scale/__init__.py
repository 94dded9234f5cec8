"""Several gateways on one register under load: small in `make test`, large with `make test-scale FULL=1`."""
