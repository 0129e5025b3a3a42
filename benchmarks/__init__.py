"""Slow measurements, run on demand: `python -m benchmarks.NAME`. Each prints what it measured."""
