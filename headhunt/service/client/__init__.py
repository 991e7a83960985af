"""The service's command-line clients."""
