"""Requests and replies as OpenAI's clients write and read them, with the fields of vLLM and llama.cpp's server."""
