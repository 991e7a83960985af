"""The data set on the page: its numbers, sizes and examples."""
