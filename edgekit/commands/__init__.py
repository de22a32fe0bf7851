"""Commands, one file each: they parse, call one function of a room, and print."""
