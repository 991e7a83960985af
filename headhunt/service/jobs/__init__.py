"""Jobs: what is admitted, how it runs on Ray, and what it leaves on disk."""
