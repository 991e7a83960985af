"""The feature cache on disk: shards, checksums, keys, manifest; reading it epoch by epoch; its object store."""
