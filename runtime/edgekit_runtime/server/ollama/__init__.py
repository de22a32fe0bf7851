"""Ollama's API: its requests, its lines of JSON, its lists of models."""
