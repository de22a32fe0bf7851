"""llama.cpp's converters, and what a conversion does to each parameter of a base."""
