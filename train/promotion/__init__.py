"""From a trial to a fine-tuned and evaluated model: chooses trials, promotes each on a worker, and records them as a study."""
