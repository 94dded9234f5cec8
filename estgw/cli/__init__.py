"""The commands of `estgw`."""
