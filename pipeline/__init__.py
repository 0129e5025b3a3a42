"""Origin to shards: read, fetch, inspect, judge, dedupe, render, measure; and what all three packages stand on."""
