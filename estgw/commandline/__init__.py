"""A command line as a table: its parser, its man page and its completion are made from the same rows."""
