"""Input files to shards: read, fetch, image stats, filters, dedupe, render, token lengths.

`core` is the layer that `mixtures` and `train` build on as well.
"""
