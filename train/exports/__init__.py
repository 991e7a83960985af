"""A promoted model exported to other formats, compared with the original in their stock runtimes, and run on any photo."""
