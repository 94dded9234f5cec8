"""What the standards say: pure functions and tables, without I/O and without aiohttp."""
