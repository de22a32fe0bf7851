"""A device of a fleet: what the fleet's signed metadata says that it runs, and how it comes to run that."""
