"""Loading, adapters, averaging, checkpoints, KV cache and sharding."""
