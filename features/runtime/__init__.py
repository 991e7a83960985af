"""What every stage stands on: errors, log, files, processes, configuration. It imports no other room of features."""
