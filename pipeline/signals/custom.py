"""Custom signals: a class with `score` in a file that the command line names, as custom filters are.

    @dataclass(frozen=True)
    class Exclamations:
        name = "exclamations"
        of = "texts"

        def score(self, model, batch):
            return np.array([sum(text.count("!") for text in texts) for texts in batch.texts], float)

`of` says what a value is of: `images` (the default), `texts`, `samples` or `pairs`. `side` is the side of the square
that pictures are resized to. `load` returns a model, once in each worker; without it `model` is None. Fields are
settings. The same rule of trust holds as for filters: what a recipe or lock holds is data, and only what the command
line named runs (pipeline/filters/custom.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np

from vlmill.pipeline.core.config import parse_block, suggest_names
from vlmill.pipeline.core.errors import RecipeError, VlmillError
from vlmill.pipeline.core.resources import Resources
from vlmill.pipeline.core.sample import Sample
from vlmill.pipeline.core.step import RUNTIME
from vlmill.pipeline.filters.custom import find_line, find_named_classes, make_with_settings, take_named_code
from vlmill.pipeline.images.views import View
from vlmill.pipeline.signals.base import Of, SignalBatch, Unit, list_units

METHOD = "score"
"""A class that has it is a signal."""

SIDE, BATCH, SECONDS = 224, 32, 600.0
"""Of a class that does not say them."""

RUNNING: Mapping[str, type[Any]] = {"resources": Resources, "seconds": float}
"""Keys of a recipe that say how it runs; the others are its settings."""


@dataclass(frozen=True)
class CustomSignal:
    """A custom signal, as every other signal is. Made anew from its code wherever it is asked; known without it."""

    kind: str
    settings: Mapping[str, Any]
    sha256: str  # of the code
    code: str | None = field(metadata=RUNTIME, repr=False, compare=False)  # sha256 speaks for it; None: not to be run
    file: str = field(metadata=RUNTIME)  # its name, for errors
    resources: Resources = field(default_factory=Resources, metadata=RUNTIME)
    seconds: float = field(default=SECONDS, metadata=RUNTIME)
    entry: str = field(default="", metadata=RUNTIME, compare=False)  # what the recipe calls it, for errors

    version = 1  # the code is in the key

    def __post_init__(self) -> None:
        if self.code is not None:
            self._check(self._made())

    @property
    def of(self) -> Of:
        """What its class says, images by default."""
        found: Of = getattr(self._made(), "of", "images")
        return found

    @property
    def batch(self) -> int:
        """What its class says."""
        return int(getattr(self._made(), "batch", BATCH))

    @property
    def threads(self) -> int:
        """What its class says."""
        return int(getattr(self._made(), "threads", 1))

    def columns(self, name: str) -> tuple[str, ...]:
        """One."""
        return (name,)

    def view(self) -> View | None:
        """A square of its side."""
        return View(int(getattr(self._made(), "side", SIDE))) if self.of in {"images", "pairs"} else None

    def list_units(self, sample: Sample) -> Iterator[Unit]:
        """By what its class says that a value is of."""
        return list_units(sample, self.of)

    def made_by(self) -> Mapping[str, str]:
        """What its class says, nothing by default."""
        made = self._made()
        return dict(made.made_by()) if hasattr(made, "made_by") else {}

    def load(self) -> Any:
        """What its `load` returns.

        Raises:
            RecipeError: it raised, and the message names the line; or there is no GPU where `resources` ask for one.
        """
        if self.resources.gpus > 0:
            from vlmill.pipeline.signals.torch_models import check_gpu  # noqa: PLC0415

            check_gpu()
        made = self._made()
        return self._run(made.load) if hasattr(made, "load") else None

    def score(self, model: Any, batch: SignalBatch) -> np.ndarray:
        """What its `score` returns: one number for each place of the batch.

        Raises:
            RecipeError: it raised, or gave something else.
        """
        values = self._run(self._made().score, model, batch)
        if hasattr(values, "detach"):  # a tensor, perhaps of a GPU, or made without torch.no_grad
            values = values.detach().cpu()
        try:
            found = np.asarray(values, np.float64).reshape(-1)
        except (TypeError, ValueError, OverflowError, RuntimeError) as error:
            raise RecipeError(f"{self.file}: score gives {type(values).__name__}, not numbers: {error}") from error
        if found.size != batch.size:
            raise RecipeError(f"{self.file}: score gives {found.size} numbers for a batch of {batch.size} places")
        return found

    def _run(self, method: Any, *arguments: Any) -> Any:
        try:
            return method(*arguments)
        except VlmillError:
            raise
        except (Exception, SystemExit) as error:
            place = find_line(error, self.file)
            raise RecipeError(f"{self.file}{place}: {type(error).__name__}: {error}") from error

    def _check(self, made: Any) -> None:
        """Refuse a class that says something that cannot be."""
        of, side = getattr(made, "of", "images"), getattr(made, "side", SIDE)
        if of not in get_args(Of):
            raise RecipeError(f"{self._place}: {self.file} has of = {of!r}; {suggest_names(str(of), get_args(Of))}")
        for name, value in (("side", side), ("batch", getattr(made, "batch", BATCH))):
            if not isinstance(value, int) or not 1 <= value <= 16_384:
                raise RecipeError(f"{self._place}: {self.file} has {name} = {value!r}; allowed: 1 to 16384")

    @property
    def _place(self) -> str:
        """Where it stands in the recipe, with its kind where that is another name."""
        entry = self.entry or self.kind
        return f"signals.{entry}" if entry == self.kind else f"signals.{entry} (kind {self.kind})"

    def _made(self) -> Any:
        refused = f"{self._place}: {self.kind!r} ({self.file}) cannot be asked"
        found = find_named_classes(self.file, take_named_code(self.code, refused, self.sha256), METHOD)
        if self.kind not in found:
            raise RecipeError(
                f"{self._place}: {self.file} has no signal {self.kind!r}; {suggest_names(self.kind, found)}"
            )
        return make_with_settings(found[self.kind], self.settings, self._place, 'path: str = "model.pt"')


def name_custom_signal(kind: str, settings: Mapping[str, Any]) -> CustomSignal:
    """A signal that is not ours, before its code is found: the recipe says in which file it is."""
    return CustomSignal(kind, dict(settings), "", None, "")


def place_custom_signal(named: CustomSignal, entry: str, sha256: str, code: str | None, file: str) -> CustomSignal:
    """A named signal with its code, under the name of its entry in the recipe.

    Raises:
        RecipeError: a setting is wrong, or a key that says how it runs.
    """
    running: dict[str, Any] = {
        name: parse_block(made, named.settings[name], f"signals.{entry}.{name}")
        for name, made in RUNNING.items()
        if name in named.settings
    }
    own = {name: value for name, value in named.settings.items() if name not in RUNNING}
    return dataclasses.replace(named, settings=own, sha256=sha256, code=code, file=file, entry=entry, **running)
