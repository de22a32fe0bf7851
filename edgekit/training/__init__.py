"""Training adapters, and what a finished training leaves behind."""
