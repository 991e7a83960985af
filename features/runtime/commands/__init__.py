"""The frame of every command, stages as processes, progress, commented YAML."""
