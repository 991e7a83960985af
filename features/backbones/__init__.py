"""Frozen backbones: the table of them, and how they are built, cut and pooled."""
