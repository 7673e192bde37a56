"""Judging: what a model is worth on images: one alone, or two against each other."""
