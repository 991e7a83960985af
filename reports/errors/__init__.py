"""The errors of the best promoted model on the test photos: which, how sure it was, and of what."""
