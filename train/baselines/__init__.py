"""What the promoted models are compared with, and the table of both."""
