"""Ray clusters from outside: a search sent as a job, followed, stopped, and its run brought home."""
