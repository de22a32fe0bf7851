"""Devices: what fits one, what travels there, and how it gets there."""
