"""The data of the recipe `quickstart`, and the scripts that make them."""
