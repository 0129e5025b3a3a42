"""The language filter: scripts and fastText, with the evidence that each node gives."""
