"""The leaders trained again over several seeds: `search confirm`, and the ranking that comes of it."""
