"""Authentication of clients, and the link between a CSR and its connection."""
