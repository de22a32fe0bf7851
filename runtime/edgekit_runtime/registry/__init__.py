"""Bundles in OCI registries: an artifact is found by tag or digest, and its blobs are brought over lines that break."""
