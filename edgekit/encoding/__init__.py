"""From rows to token ids, and to what stands for images among them."""
