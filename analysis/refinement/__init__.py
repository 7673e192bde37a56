"""The next space: narrower where trials are sure, wider where the best lie at a bound."""
