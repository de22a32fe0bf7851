"""Base models: what a name stands for, and which weights of it are trained on and deployed."""
