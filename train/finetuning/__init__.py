"""The full augmented run: the whole network, what of it is trained in which phase, on what, and how."""
