"""Photos and labels in; a checked, split index out."""
