"""vlmill: from raw vision-language data to training mixtures, their statistics, and a compact model.

    import vlmill

    run = vlmill.build("quickstart", out="demo")     # what `vlmill build quickstart --out demo` does
    run = vlmill.open_run("demo")
    run.funnel()                                     # what was kept of each source, and why not the rest
    run.samples("web").collect()                     # tables are polars frames
    run.stage("align").stats
    run.train()

The names below are the public API; the code is in `vlmill.api`. What else stands in the packages may change. Each name
is imported when it is first asked for, so that `import vlmill` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmill.api.builds import LoadedRecipe, build, load_recipe
    from vlmill.api.checks import CheckResult, check_recipe
    from vlmill.api.runs import DecodedPicture, Run, open_run
    from vlmill.api.stages import PlannedSample, StageMixture
    from vlmill.pipeline.core.errors import RecipeError, SourceError, StoreError, VlmillError
    from vlmill.pipeline.core.sample import WHOLE_SAMPLE, ImageStats, Node, Sample, SampleId, Verdict
    from vlmill.pipeline.filters.base import Filter, Undecided
    from vlmill.pipeline.filters.custom import Drop
    from vlmill.pipeline.reports.estimate import RunEstimate, SourceEstimate
    from vlmill.pipeline.reports.what_if import WhatIfAnswer
    from vlmill.train.batch import Batch
    from vlmill.train.settings import Machine

__version__ = "0.1.0"

__all__ = [
    "WHOLE_SAMPLE",
    "Batch",
    "CheckResult",
    "DecodedPicture",
    "Drop",
    "Filter",
    "ImageStats",
    "LoadedRecipe",
    "Machine",
    "Node",
    "PlannedSample",
    "RecipeError",
    "Run",
    "RunEstimate",
    "Sample",
    "SampleId",
    "SourceError",
    "SourceEstimate",
    "StageMixture",
    "StoreError",
    "Undecided",
    "Verdict",
    "VlmillError",
    "WhatIfAnswer",
    "__version__",
    "build",
    "check_recipe",
    "load_recipe",
    "open_run",
]

_MODULES = {
    "vlmill.api.builds": ("LoadedRecipe", "build", "load_recipe"),
    "vlmill.api.checks": ("CheckResult", "check_recipe"),
    "vlmill.api.runs": ("DecodedPicture", "Run", "open_run"),
    "vlmill.api.stages": ("PlannedSample", "StageMixture"),
    "vlmill.pipeline.core.errors": ("RecipeError", "SourceError", "StoreError", "VlmillError"),
    "vlmill.pipeline.core.sample": ("WHOLE_SAMPLE", "ImageStats", "Node", "Sample", "SampleId", "Verdict"),
    "vlmill.pipeline.filters.base": ("Filter", "Undecided"),
    "vlmill.pipeline.filters.custom": ("Drop",),
    "vlmill.pipeline.reports.estimate": ("RunEstimate", "SourceEstimate"),
    "vlmill.pipeline.reports.what_if": ("WhatIfAnswer",),
    "vlmill.train.batch": ("Batch",),
    "vlmill.train.settings": ("Machine",),
}
"""Where the names of the API are defined; a test holds it against the imports above."""

_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a name of the API when it is first asked for.

    Raises:
        AttributeError: there is no such name.
    """
    if name not in _HOMES:
        raise AttributeError(f"module 'vlmill' has no attribute {name!r}; it has {', '.join(__all__)}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    """The names of the API."""
    return sorted(__all__)
