"""Chat formats: how a sample becomes tokens, and what stands around the placeholders of an image."""
