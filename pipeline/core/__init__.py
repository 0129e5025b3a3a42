"""The lowest layer: errors, configuration, reasons, the sample model, keys and what a step is.

It imports nothing above it.
"""
