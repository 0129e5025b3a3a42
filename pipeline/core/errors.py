"""Errors for people. Every module raises these; the command line prints them without a stack trace."""

from collections.abc import Callable, Iterable, Sequence


class VlmillError(Exception):
    """Something that a person can put right.

    The message names the thing, the value, what was allowed, and the next command.

    Attributes:
        faults: What is wrong, one message for each fault; the error's text has one below the other.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class RecipeError(VlmillError):
    """The recipe asks for something that does not exist or contradicts itself."""


class SourceError(VlmillError):
    """An input file is missing or does not have the form that its source declares."""


class BadFileError(SourceError):
    """The bytes of an input file are cut or damaged, or not of the form that its source declares."""


class StoreError(VlmillError):
    """A folder does not keep the store contract: locked to another recipe, in use, or damaged."""


class LackOfMemoryError(StoreError):
    """A task needs more memory than its process may have; the others may have enough."""


class NotBuiltError(StoreError):
    """A run does not hold this: its recipe does not ask for it, or the build has not come so far."""


def list_errors(checks: Iterable[Callable[[], object]]) -> list[VlmillError]:
    """The errors of all checks that do not pass, in their order."""
    errors = []
    for check in checks:
        try:
            check()
        except VlmillError as error:
            errors.append(error)
    return errors


def list_faults(errors: Iterable[VlmillError]) -> list[str]:
    """The faults of many errors, in their order and each once."""
    return list(dict.fromkeys(fault for error in errors for fault in error.faults))


def pass_all(*checks: Callable[[], object]) -> None:
    """Ask all checks, and not the first that fails alone.

    Raises:
        RecipeError: what each of them says, in a line or more.
    """
    if faults := list_faults(list_errors(checks)):
        raise RecipeError(*faults)


def raise_errors(errors: Sequence[VlmillError]) -> None:
    """Raise all errors as one.

    Raises:
        VlmillError: of their class, where they have one in common; else a RecipeError.
    """
    if errors:
        kinds = {type(error) for error in errors}
        raise (kinds.pop() if len(kinds) == 1 else RecipeError)(*list_faults(errors))
