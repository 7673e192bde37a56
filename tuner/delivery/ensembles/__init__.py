"""Ensembles: several models as one, by their probabilities or by their weights."""
