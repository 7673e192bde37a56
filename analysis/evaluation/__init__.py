"""What an evaluation, a comparison, a look inside and a compression found, as figures and pages."""
