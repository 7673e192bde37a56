"""Compressing: smaller forms of a model, each measured against it."""
