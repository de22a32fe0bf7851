"""Hugging Face folders of base models."""
