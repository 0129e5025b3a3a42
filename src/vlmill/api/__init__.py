"""The public API behind `import vlmill`: what the commands do, in Python.

It puts pipeline, mixtures and train together; the command line calls it.
"""
