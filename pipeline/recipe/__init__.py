"""Recipes: YAML to frozen objects, overrides, validation and the folder's lock."""
