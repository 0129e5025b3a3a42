"""Errors for people. Every module raises these; the command line prints them without a stack trace."""

from collections.abc import Callable, Iterable


class VlmillError(Exception):
    """Something that a person can put right.

    The message names the thing, the value, what was allowed, and the next command.
    """


class RecipeError(VlmillError):
    """The recipe asks for something that does not exist or contradicts itself."""


class SourceError(VlmillError):
    """An input file is missing or does not have the form that its source declares."""


class StoreError(VlmillError):
    """A folder does not keep the store contract: locked to another recipe, in use, or damaged."""


def list_faults(checks: Iterable[Callable[[], object]]) -> list[str]:
    """What all checks say that do not pass, in their order and each once."""
    faults = []
    for check in checks:
        try:
            check()
        except VlmillError as error:
            faults.append(str(error))
    return list(dict.fromkeys(faults))


def pass_all(*checks: Callable[[], object]) -> None:
    """Ask all checks, and not the first that fails alone.

    Raises:
        RecipeError: what each of them says, in a line or more.
    """
    if faults := list_faults(checks):
        raise RecipeError("\n".join(faults))
