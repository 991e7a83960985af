"""A study for people: its progress while it runs, and each trial's description and curves in Optuna's dashboard."""
