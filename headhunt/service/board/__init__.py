"""The service's view of its jobs and studies."""
