"""Trials of one structure as lanes of a compiled program on features in memory, packed as tasks for any worker."""
