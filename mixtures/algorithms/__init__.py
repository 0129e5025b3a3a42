"""Algorithms without files: shares to repetitions, the order of samples, packing."""
