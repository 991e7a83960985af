"""Frozen networks: which there are, how they are built, cut and pooled."""
