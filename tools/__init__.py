"""Commands of one use, run from the repository's root. They are no part of the wheel."""
