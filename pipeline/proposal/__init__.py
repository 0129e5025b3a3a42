"""What `vlmill new` finds in data that nobody has described: its files, its columns, a kind of source, a recipe.

Nothing of a run is needed or made. `proposal.py` puts together what the others find, `recipe_text.py` writes it.
"""
