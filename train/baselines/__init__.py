"""Baselines for the promoted models, and the table that compares both."""
