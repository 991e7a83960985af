"""The feature cache on disk (shards, checksums, keys, manifest), its batches per epoch, and its object store."""
