"""The page's sections about the search: its leaders, its history, and which parameters mattered."""
