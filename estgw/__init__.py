"""A CGI-style callout server for EST, Enrollment over Secure Transport (RFC 7030)."""

__version__ = "0.1.0"
