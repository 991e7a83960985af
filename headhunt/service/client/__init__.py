"""The command-line clients of the service."""
