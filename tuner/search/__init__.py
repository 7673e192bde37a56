"""Which configuration next, which trial to stop: Optuna and rungs. Knows neither torch nor Ray."""
