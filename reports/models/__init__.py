"""The page's sections about promoted models and earlier runs: what they reached, and how they learned."""
