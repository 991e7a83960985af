"""Trials of one structure as lanes of a compiled program on features in memory, and that as a task for any worker."""
