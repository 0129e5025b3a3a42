"""Recipes that ship with vlmill, and the data of the quickstart, which `tools/quickstart` makes."""
