"""Shared by all commands: options and exit status, stages as subprocesses, progress, commented YAML."""
