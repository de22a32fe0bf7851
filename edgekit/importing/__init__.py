"""What other tools have made, as bundles and adapter files that devices run."""
