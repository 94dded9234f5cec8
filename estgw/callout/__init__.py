"""Callouts: running somebody's script for one step of a request, and what both sides promise."""
