"""The application on top of the four stages: the command line that joins them, and the service."""
