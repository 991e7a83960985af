"""What the service shows of its jobs and studies."""
