"""Makes the data of the recipe `quickstart`, which lie in recipes/quickstart."""
