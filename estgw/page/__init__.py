"""The live page: what the records say, in a browser on this machine."""
