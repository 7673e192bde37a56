"""Explaining: where in an image a model sees its class, and what its filters look for."""
