"""What is installed on a device: files by content, and generations that are switched as a whole."""

from edgekit_runtime.store.place import default_store, is_store
from edgekit_runtime.store.store import Installed, Store

__all__ = ["Installed", "Store", "default_store", "is_store"]
