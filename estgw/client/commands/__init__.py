"""The commands of `estclient`: what a person types, and what comes out."""
