"""Fine-tuning on augmented photos: the whole network, which layers each phase trains, on which data, and how."""
