"""Better settings for an adapter, searched: `edgekit tune`."""
