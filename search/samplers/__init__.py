"""Where the next trial comes from: Optuna's samplers and KerasTuner's oracles behind one interface, functions of the history."""
