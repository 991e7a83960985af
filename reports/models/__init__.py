"""The promoted models on the page: what they reached, and where they err."""
