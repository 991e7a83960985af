"""A KerasTuner `build(hp) -> compiled model` function, or a HyperModel, as a search space and an objective."""
