"""Several gateway processes on the same addresses: one supervisor that starts and replaces them, and the workers."""
