"""Input file to shards: read, fetch, image stats, filter, dedupe, render, measure; and what all three packages stand on."""
