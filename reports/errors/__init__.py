"""The errors of the best promoted model on the test photos: confusions, mistakes, confidence."""
