"""Lessons that check themselves: what was done is read from records, the CA and files; nothing is changed."""
