"""Cryptographic Message Syntax (RFC 5652): signed and enveloped data, as pure functions over bytes."""
