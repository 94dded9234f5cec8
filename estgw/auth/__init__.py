"""Who a client is, and whether its CSR belongs to its connection."""
