"""WebDataset shards: tars with an index, and byte ranges of them from any storage."""
