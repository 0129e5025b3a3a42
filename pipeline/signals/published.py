"""What signals of published models share: weights, the shape of a batch, and how transformers reads the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Any, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT, Amount
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.resources import Resources
from vlmill.pipeline.core.sample import Sample
from vlmill.pipeline.core.step import RUNTIME
from vlmill.pipeline.images.views import PictureView, read_preprocessing
from vlmill.pipeline.signals.base import Of, Unit, list_units
from vlmill.pipeline.signals.weights import WeightsField


def list_versions(*packages: str) -> dict[str, str]:
    """The versions of packages that compute values.

    Raises:
        RecipeError: one is not installed.
    """
    try:
        return {name: version(name) for name in packages}
    except PackageNotFoundError as error:
        raise RecipeError(
            f"signals: this needs the package {error.name}; run, in the clone of vlmill: pip install '.[signals]'"
        ) from None


@dataclass(frozen=True, config=STRICT)
class PublishedSignal:
    """What all signals of published models have. Values and units are those of the class that derives from it."""

    of: ClassVar[Of]
    auto: ClassVar[str] = "AutoModel"  # the class of transformers

    model: WeightsField  # a folder, or OWNER/NAME with the revision
    batch: Amount = 32  # places of a batch; all have one shape
    threads: Annotated[int, Field(ge=1, le=1024)] = 1  # threads of one worker on a CPU
    resources: Resources = field(default_factory=Resources, metadata=RUNTIME)  # CPUs, memory and GPUs of one worker
    seconds: Annotated[float, Field(gt=0, le=86_400)] = field(default=600.0, metadata=RUNTIME)  # a batch may take

    def view(self) -> PictureView | None:
        """The pictures that the model's own processor would make."""
        return read_preprocessing(self.model.folder).view if self.of in {"images", "pairs"} else None

    def list_units(self, sample: Sample) -> Iterator[Unit]:
        """See Signal."""
        return list_units(sample, self.of)

    def made_by(self) -> Mapping[str, str]:
        """Torch and what reads models and texts."""
        return list_versions("torch", "transformers", "tokenizers")

    def load(self) -> Any:
        """The model on its device."""
        from vlmill.pipeline.signals.torch_models import load_model  # noqa: PLC0415

        gpu, images = self.resources.gpus > 0, self.of in {"images", "pairs"}
        return load_model(
            self.model.folder, self.auto, gpu=gpu, threads=self.threads, texts=self.of != "images", images=images
        )
