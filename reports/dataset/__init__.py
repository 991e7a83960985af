"""The page's section about the data set: its numbers, sizes and examples."""
