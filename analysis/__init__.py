"""Turns what trials left on disk into answers; needs neither torch nor Ray nor `tuner`."""
