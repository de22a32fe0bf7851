"""The HTTP service: OpenAI's protocol over one runtime."""

from edgekit_runtime.server.app import make_app
from edgekit_runtime.server.serve import serve

__all__ = ["make_app", "serve"]
