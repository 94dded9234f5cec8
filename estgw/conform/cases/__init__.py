"""The cases, one module for each group or two: a function for each, and the table at the end."""
