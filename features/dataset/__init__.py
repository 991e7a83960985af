"""Photos and labels in; an index, checked and split, out."""
