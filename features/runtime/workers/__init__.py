"""Where tasks run: in this process, in processes on this machine, or on Ray."""
