"""Where tasks run: in this process, on processes of this machine, or on Ray."""
