"""Checks on cached clean features: a linear probe, uninformative features, harmful policies."""
