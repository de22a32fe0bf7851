"""Benchmarks of a bundle on this machine, a board, a browser or an emulated board."""
