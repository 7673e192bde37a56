"""Hyperparameter search for image classifiers: from one YAML file to a folder of honest results."""

__version__ = "0.1.0"
