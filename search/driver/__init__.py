"""The driver of a study, for any objective: asks, runs, reports, prunes and tells; its storage, owner, end and log."""
