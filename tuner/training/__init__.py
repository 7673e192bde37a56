"""Pure torch: a TrialConfig and a dataset in, epochs of metrics out. Knows neither Ray nor Optuna."""
