"""The HTTP service: OpenAI's protocol over a supervised engine process."""

from edgekit_runtime.server.serve import serve

__all__ = ["serve"]
