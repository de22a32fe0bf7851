"""What pages of a site may do: the Content-Security-Policy and the headers around it."""

from __future__ import annotations

from collections.abc import Sequence

# Of documents in the bundle, which its maker has written: they are seen, as another origin's, and nothing in them runs.
BUNDLE_POLICY = "; ".join(
    (
        "sandbox",
        "default-src 'none'",
        "style-src 'unsafe-inline'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
    )
)


def content_security_policy(origins: Sequence[str] = ()) -> str:
    """Code from this site only, connections to it and to ``origins``; WebAssembly, and the engine's blob workers."""
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self' 'wasm-unsafe-eval'",
            "worker-src 'self' blob:",
            " ".join(("connect-src 'self' blob:", *origins)),
            "style-src 'self'",
            "img-src 'self' blob: data:",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def response_headers(origins: Sequence[str] = ()) -> dict[str, str]:
    """Headers of every response: the first three isolate the page, which threads need."""
    return {
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Content-Security-Policy": content_security_policy(origins) + "; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
