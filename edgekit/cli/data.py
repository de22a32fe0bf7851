"""`edgekit data check | split | generate | label`."""

from __future__ import annotations

from edgekit.cli.data_check import check
from edgekit.cli.frame import CommandGroup

data = CommandGroup("data", "Check, split, generate and label rows.", (check,))
