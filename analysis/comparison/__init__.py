"""Runs side by side: what changed, what came of it, and what of it is luck."""
