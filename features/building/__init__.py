"""Builds a feature cache shard by shard, checks it and repairs it."""
