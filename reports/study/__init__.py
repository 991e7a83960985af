"""The search on the page: its leaders, its history, and what mattered."""
