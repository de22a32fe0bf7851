"""`edgekit keys`: the keys of a fleet."""

from __future__ import annotations

from edgekit.cli.frame import CommandGroup
from edgekit.cli.keys_init import init
from edgekit.cli.keys_renew import renew
from edgekit.cli.keys_rotate import rotate

keys = CommandGroup("keys", "Keys of a fleet of devices, and the metadata that they sign.", (init, rotate, renew))
