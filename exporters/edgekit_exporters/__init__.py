"""Adapter and base to the files that devices run."""
