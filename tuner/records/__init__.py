"""The run folder: its contract (results/README.md), its one writer, its lock."""
