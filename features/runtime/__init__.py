"""Foundation of every stage: errors, log, files, processes, configuration. Imports nothing else from features."""
