"""Files on disks that fail: whole or not at all, regular ones only, within bounds."""
