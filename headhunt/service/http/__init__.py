"""The HTTP interface: the application, its routes, the guard around them, and Optuna's dashboard."""
