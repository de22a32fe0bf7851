"""From messages to tokens: chat templates, special tokens, reasoning, bounds."""
