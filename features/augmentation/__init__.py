"""Augmentation policies, and the views of photos that they produce."""
