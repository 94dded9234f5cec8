"""Bytes on TLS: one EST server, its checks, and HTTP on the connection that has passed them."""
