"""What travels: bundles, adapters, bases and signatures, read within bounds."""
