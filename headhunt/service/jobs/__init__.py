"""Jobs: which configurations are accepted, how they run on Ray, and what they leave on disk."""
