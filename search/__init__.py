"""Stage 2: FeatureCache in, Study out.

Reads `cache/<key>/`, trains classifier heads on it, and writes the Optuna study (`study.db`) and `trials/<number>/`.
"""
