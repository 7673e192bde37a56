"""Places trials on workers and stops them: the only part that imports Ray."""
