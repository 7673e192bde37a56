"""Delivery: what comes after the search. A trial becomes a model that can be trusted, explained and shipped."""
