"""The driver of a study, for any objective: asks, runs, reports, prunes and tells; storage, ownership, stopping and work log."""
