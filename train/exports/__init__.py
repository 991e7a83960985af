"""A promoted model in other formats, compared with the original in their stock runtimes, and run on any image."""
