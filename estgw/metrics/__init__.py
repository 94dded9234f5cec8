"""Metrics for Prometheus.  They are off until the configuration gives an address to serve them on."""
