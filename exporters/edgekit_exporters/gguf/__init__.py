"""GGUF: bases and adapters as llama.cpp reads them."""
