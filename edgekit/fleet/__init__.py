"""A fleet from its operator's side: keys, signed metadata (TUF), and what is published of it in a registry."""
