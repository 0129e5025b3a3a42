"""Errors for people. Every module raises these; the command line prints them without a stack trace."""


class VlmillError(Exception):
    """Something that a person can put right: the message names the thing, the value, what was allowed, the next command."""


class RecipeError(VlmillError):
    """The recipe asks for something that does not exist or contradicts itself."""


class SourceError(VlmillError):
    """An input file is missing or does not have the form that its source declares."""


class StoreError(VlmillError):
    """A folder does not keep the store contract: locked to another recipe, in use, or damaged."""
