"""One base and its adapters, ready to be asked."""

from edgekit_runtime.formats.manifest import BASE
from edgekit_runtime.runtime.calling import AS_TEXT
from edgekit_runtime.runtime.runtime import Runtime

__all__ = ["AS_TEXT", "BASE", "Runtime"]
