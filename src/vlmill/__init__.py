"""vlmill: from raw vision-language data to training mixtures, their statistics, and a compact model.

    import vlmill

    run = vlmill.build("quickstart", out="demo")     # what `vlmill build quickstart --out demo` does
    run = vlmill.open_run("demo")
    run.funnel()                                     # what was kept of each source, and why not the rest
    run.samples("web").collect()                     # tables are polars frames
    run.stage("align").stats
    run.train()

    vlmill.compare_mixtures("demo:align", "demo:tune")

The names below are the public API; the code is in `vlmill.api`. What else stands in the packages may change. Each name
is imported when it is first asked for, so that `import vlmill` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmill.api.ablation import Ablation, AblationPlan, ablate, plan_ablation
    from vlmill.api.builds import LoadedRecipe, build, forecast_changes, load_recipe
    from vlmill.api.checks import CheckResult, check_recipe, estimate_training
    from vlmill.api.mixtures import compare_mixtures, compare_published, import_mixture, list_published, load_published
    from vlmill.api.run_tables import DecodedPicture
    from vlmill.api.runs import Run, open_run
    from vlmill.api.stages import PlannedSample, StageMixture
    from vlmill.api.takedown import Takedown
    from vlmill.mixtures.export.run_export import ExportResult
    from vlmill.mixtures.published.catalogue import PublishedMixture
    from vlmill.pipeline.checks.estimate import RunEstimate, SourceEstimate
    from vlmill.pipeline.checks.forecast import StepForecast
    from vlmill.pipeline.core.errors import NotBuiltError, RecipeError, SourceError, StoreError, VlmillError
    from vlmill.pipeline.core.sample import WHOLE_SAMPLE, ImageStats, Node, Sample, SampleId, Verdict
    from vlmill.pipeline.filters.base import Filter, Undecided
    from vlmill.pipeline.filters.custom import Drop
    from vlmill.pipeline.reports.contamination import Contamination
    from vlmill.pipeline.reports.losses import Loss
    from vlmill.pipeline.reports.refused import Refused
    from vlmill.pipeline.reports.status import Status
    from vlmill.pipeline.reports.trace import Traced
    from vlmill.pipeline.reports.unused import UnusedFiles
    from vlmill.pipeline.reports.what_if import WhatIfAnswer
    from vlmill.train.batch import Batch
    from vlmill.train.estimate import TrainingEstimate
    from vlmill.train.evaluate import Score
    from vlmill.train.imbalance import Imbalance
    from vlmill.train.run import TrainedStage
    from vlmill.train.settings import Machine
    from vlmill.train.trace import SeenSegment, StageUse

__version__ = "0.1.0"

__all__ = [
    "WHOLE_SAMPLE",
    "Ablation",
    "AblationPlan",
    "Batch",
    "CheckResult",
    "Contamination",
    "DecodedPicture",
    "Drop",
    "ExportResult",
    "Filter",
    "ImageStats",
    "Imbalance",
    "LoadedRecipe",
    "Loss",
    "Machine",
    "Node",
    "NotBuiltError",
    "PlannedSample",
    "PublishedMixture",
    "RecipeError",
    "Refused",
    "Run",
    "RunEstimate",
    "Sample",
    "SampleId",
    "Score",
    "SeenSegment",
    "SourceError",
    "SourceEstimate",
    "StageMixture",
    "StageUse",
    "Status",
    "StepForecast",
    "StoreError",
    "Takedown",
    "Traced",
    "TrainedStage",
    "TrainingEstimate",
    "Undecided",
    "UnusedFiles",
    "Verdict",
    "VlmillError",
    "WhatIfAnswer",
    "__version__",
    "ablate",
    "build",
    "check_recipe",
    "compare_mixtures",
    "compare_published",
    "estimate_training",
    "forecast_changes",
    "import_mixture",
    "list_published",
    "load_published",
    "load_recipe",
    "open_run",
    "plan_ablation",
]

_MODULES = {
    "vlmill.api.ablation": ("Ablation", "AblationPlan", "ablate", "plan_ablation"),
    "vlmill.api.builds": ("LoadedRecipe", "build", "forecast_changes", "load_recipe"),
    "vlmill.api.checks": ("CheckResult", "check_recipe", "estimate_training"),
    "vlmill.api.mixtures": (
        "compare_mixtures",
        "compare_published",
        "import_mixture",
        "list_published",
        "load_published",
    ),
    "vlmill.api.run_tables": ("DecodedPicture",),
    "vlmill.api.runs": ("Run", "open_run"),
    "vlmill.api.stages": ("PlannedSample", "StageMixture"),
    "vlmill.api.takedown": ("Takedown",),
    "vlmill.mixtures.export.run_export": ("ExportResult",),
    "vlmill.mixtures.published.catalogue": ("PublishedMixture",),
    "vlmill.pipeline.checks.estimate": ("RunEstimate", "SourceEstimate"),
    "vlmill.pipeline.checks.forecast": ("StepForecast",),
    "vlmill.pipeline.core.errors": ("NotBuiltError", "RecipeError", "SourceError", "StoreError", "VlmillError"),
    "vlmill.pipeline.core.sample": ("WHOLE_SAMPLE", "ImageStats", "Node", "Sample", "SampleId", "Verdict"),
    "vlmill.pipeline.filters.base": ("Filter", "Undecided"),
    "vlmill.pipeline.filters.custom": ("Drop",),
    "vlmill.pipeline.reports.contamination": ("Contamination",),
    "vlmill.pipeline.reports.losses": ("Loss",),
    "vlmill.pipeline.reports.refused": ("Refused",),
    "vlmill.pipeline.reports.status": ("Status",),
    "vlmill.pipeline.reports.trace": ("Traced",),
    "vlmill.pipeline.reports.unused": ("UnusedFiles",),
    "vlmill.pipeline.reports.what_if": ("WhatIfAnswer",),
    "vlmill.train.batch": ("Batch",),
    "vlmill.train.estimate": ("TrainingEstimate",),
    "vlmill.train.evaluate": ("Score",),
    "vlmill.train.imbalance": ("Imbalance",),
    "vlmill.train.run": ("TrainedStage",),
    "vlmill.train.settings": ("Machine",),
    "vlmill.train.trace": ("SeenSegment", "StageUse"),
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
    if isinstance(found, type):
        import_module("vlmill.pipeline.core.field_comments").complete_docstrings(found)
    return found


def __dir__() -> list[str]:
    """The names of the API."""
    return sorted(__all__)
