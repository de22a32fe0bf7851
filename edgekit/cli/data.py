"""`edgekit data`: the commands that look after rows."""

from __future__ import annotations

from edgekit.cli.data_check import check
from edgekit.cli.data_generate import generate
from edgekit.cli.data_label import label
from edgekit.cli.data_split import split
from edgekit.cli.frame import CommandGroup

data = CommandGroup("data", "Check, split, generate and label rows.", (check, split, generate, label))
