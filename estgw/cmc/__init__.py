"""Certificate Management over CMS (RFC 5272, RFC 6402): messages, controls and proofs, as pure functions over bytes."""
