"""How trials share the cores and cards of a machine: measured, then decided."""
