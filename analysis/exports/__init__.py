"""Runs in other tools: Optuna, TensorBoard, MLflow."""
