"""From trained adapters to a bundle that devices run."""
