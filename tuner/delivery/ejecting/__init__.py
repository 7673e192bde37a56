"""Ejecting: a trial as one plain PyTorch file that trains the same."""
