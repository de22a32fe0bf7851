"""Does the engine compute what training computes?  Asked of a tiny random model of a base's own configuration."""
