"""Clients that nobody here wrote, unchanged, against a real service with a real model."""
