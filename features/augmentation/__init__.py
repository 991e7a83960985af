"""Augmentation policies, and the views that they give of photos."""
