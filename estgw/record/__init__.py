"""What happened: records of requests and failed handshakes, in memory and as files."""
