"""What the user wrote, as frozen and validated values; knows neither torch nor Ray."""
