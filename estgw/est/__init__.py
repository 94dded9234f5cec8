"""The EST standards as pure functions and tables, without I/O and without aiohttp."""
