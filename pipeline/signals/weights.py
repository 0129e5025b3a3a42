"""Weights of published models: a folder or a name on the Hub in a recipe, a folder of this machine when they are used.

Where they lie is no part of a key, what is in them is: `find_weights` adds their sha256 before any work.
"""

from __future__ import annotations

import hashlib
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.step import RUNTIME
from vlmill.pipeline.signals.custom import CustomSignal

PATTERNS = ("*.json", "*.safetensors", "*.txt", "*.model", "*.onnx", "*.jinja")
"""What is fetched of a repository, and what the sha256 is over: weights, configurations, vocabularies and chat
templates, which run in Jinja's sandbox. No code, and no pickles."""


@dataclass(frozen=True, config=STRICT)
class ModelWeights:
    """Where the weights of a model lie."""

    path: str = field(metadata=RUNTIME)  # a folder or file (relative to the recipe), or a name on the Hugging Face Hub
    revision: str | None = field(default=None, metadata=RUNTIME)  # of a name on the Hub: a commit, 40 digits
    sha256: str = ""  # of what is there; computed by the build, and checked where a recipe gives it

    @property
    def folder(self) -> Path:
        """The folder or file, once it was found."""
        return Path(self.path)


def _read_short_form(value: Any) -> Any:
    """A path alone stands for `{path: ...}`."""
    return {"path": value} if isinstance(value, str) else value


WeightsField = Annotated[ModelWeights, BeforeValidator(_read_short_form, json_schema_input_type=str | ModelWeights)]
"""How a signal declares its model."""


def find_weights(weights: ModelWeights, where: str, base: Path) -> ModelWeights:
    """The same with an absolute path and the sha256 of what is there. Fetches from the Hub what is not on this machine.

    Args:
        weights: As the recipe has them.
        where: The place in the recipe, for errors.
        base: The folder that relative paths start from.

    Raises:
        RecipeError: there is nothing, nothing can be had, or it is something else than the recipe's sha256 says.
    """
    place = base / weights.path
    if not place.exists():
        place = _fetch_snapshot(weights, where, place)
    sha256 = hash_weights(place)
    if weights.sha256 not in ("", sha256):
        raise RecipeError(
            f"{where}.sha256: {place} has {sha256}, not {weights.sha256}; take the key out, or other weights"
        )
    return replace(weights, path=str(place.absolute()), sha256=sha256)


def hash_weights(place: Path) -> str:
    """sha256, in hexadecimal, over the names and sha256 of the files of a model, or of the one file."""
    if place.is_file():
        return hash_file(place)
    names = sorted({path.relative_to(place) for pattern in PATTERNS for path in place.rglob(pattern)})
    lines = (f"{name.as_posix()} {hash_file(place / name)}\n" for name in names if ".cache" not in name.parts)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def list_weights(signal: Any) -> dict[str, ModelWeights]:
    """The weights of a signal by the key that names them."""
    return {name: value for name, value in vars(signal).items() if isinstance(value, ModelWeights)}


def check_weights(signal: Any, where: str, base: Path) -> None:
    """Look whether a signal's weights are there, or can be asked for on the Hub, and whether they take pictures.

    Raises:
        RecipeError: they are not, what prepares their pictures is of no form that is known, or a library is missing.
    """
    found = list_weights(signal)
    if not isinstance(signal, CustomSignal):
        signal.made_by()
    for name, weights in found.items():
        if not (base / weights.path).exists():
            _refuse_missing(weights, f"{where}.{name}", base / weights.path)
    if found and all((base / weights.path).exists() for weights in found.values()):
        placed = {name: replace(weights, path=str(base / weights.path)) for name, weights in found.items()}
        replace(signal, **placed).view()


def _refuse_missing(weights: ModelWeights, where: str, place: Path) -> None:
    """Refuse what is no folder here and no name on the Hub with its revision."""
    if weights.path.count("/") != 1 or weights.path.startswith((".", "/")):
        raise RecipeError(
            f"{where}.path: there is no {place}; give a folder, a file, or OWNER/NAME on the Hub, for example with "
            f"--set {where}.path=/data/models/NAME"
        )
    if weights.revision is None:
        raise RecipeError(
            f"{where}.revision: is missing: {weights.path} is no folder here, and what a name on the Hub stands for "
            "may change; give the commit, 40 digits"
        )


def _fetch_snapshot(weights: ModelWeights, where: str, place: Path) -> Path:
    """The files of a repository at its revision, in the Hub's own cache."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - only where something is to be fetched
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError  # noqa: PLC0415

    _refuse_missing(weights, where, place)
    try:
        return Path(snapshot_download(weights.path, revision=weights.revision, allow_patterns=list(PATTERNS)))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise RecipeError(f"{where}: {weights.path} at {weights.revision} cannot be fetched: {error}") from error


def resolve_weights(signal: Any, where: str, base: Path) -> Any:
    """A signal whose weights are found; one without weights as it is.

    Raises:
        RecipeError: see `find_weights`.
    """
    return replace(
        signal, **{name: find_weights(value, f"{where}.{name}", base) for name, value in list_weights(signal).items()}
    )
