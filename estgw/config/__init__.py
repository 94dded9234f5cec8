"""The configuration, and what stands in YAML."""
