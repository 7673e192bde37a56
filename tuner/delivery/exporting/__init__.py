"""Exporting: a model in forms that others read, its card, and how long it takes."""
