"""The fidelity study: how well the cached search predicts the full run, and what it saves."""
