"""Computes a feature cache shard by shard; checks and repairs it."""
