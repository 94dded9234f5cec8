"""What the gateway counts, for Prometheus: off until the configuration says where to serve it."""
