"""Adapters made of others: found, combined, measured on the rows of each part, written into the project."""
