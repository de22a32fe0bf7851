"""`targets: auto`: which matrices of a trained adapter may go, so that it decodes as fast as it has to."""
