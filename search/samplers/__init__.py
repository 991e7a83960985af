"""Optuna's samplers and KerasTuner's oracles behind one interface: each ask is a function of the study's history."""
