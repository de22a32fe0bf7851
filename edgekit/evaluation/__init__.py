"""Answers of a trained model or of exported files, and how good they are."""
