"""Input files: listing, hashing and opening them on any storage and on the Hugging Face Hub."""
