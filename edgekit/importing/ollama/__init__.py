"""Models of Ollama: its Modelfiles, its store, and what becomes of them here."""
