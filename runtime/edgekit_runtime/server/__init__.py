"""The HTTP service: OpenAI's protocol and others over a supervised engine process.

The engine's process is one of its modules (:mod:`worker`), so this package imports nothing: that process needs neither
HTTP nor the store.
"""
