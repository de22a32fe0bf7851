"""What is new on a device is checked, and tried in a process of its own, before it answers."""
