"""What one worker that holds state takes of a machine: a block of recipes, and what the executor asks Ray for."""

from __future__ import annotations

from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT, Amount


@dataclass(frozen=True, config=STRICT)
class Resources:
    """What one worker of a model takes, and how many there are.

    Attributes:
        cpus: cores that one worker computes on; decoding uses them while models have nothing to do.
        gpus: GPUs of one worker; 0.25 lets four share one. 0 computes on CPUs.
        memory: bytes that one worker is taken to need; no more are started than fit.
        workers: how many; by default on GPUs as many as there is room for, on CPUs one, and more where it is behind.
    """

    cpus: float = Field(default=1.0, ge=0)
    gpus: float = Field(default=0.0, ge=0)
    memory: Amount | None = None
    workers: Amount | None = None
