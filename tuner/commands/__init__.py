"""The commands: each parses, calls and prints; beside them what each says of its results."""
