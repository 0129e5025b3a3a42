"""The steps of a mixture: select, mix, plan, lock."""
