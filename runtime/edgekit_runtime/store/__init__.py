"""What is installed on a device: files by content, and generations that are switched as a whole."""

from edgekit_runtime.store.store import ADAPTER_SUFFIXES, Installed, Store, default_store, is_store

__all__ = ["ADAPTER_SUFFIXES", "Installed", "Store", "default_store", "is_store"]
