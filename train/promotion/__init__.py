"""From a trial to a fine-tuned and evaluated model: which trials, each on a worker, followed and recorded as a study."""
