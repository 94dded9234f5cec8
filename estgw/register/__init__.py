"""The register: the certificates that a CA has issued."""
