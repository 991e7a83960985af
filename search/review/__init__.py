"""What people see of a study: its progress while it runs, and each trial in words and pictures in Optuna's dashboard."""
