"""edgekit: from data to a proven, swappable adapter on a device."""
