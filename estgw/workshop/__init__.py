"""Workshops: a gateway for each participant on one machine, a trainer's page, and handouts."""
