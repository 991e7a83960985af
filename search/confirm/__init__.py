"""`search confirm`: the leaders retrained over several seeds, and the resulting ranking."""
