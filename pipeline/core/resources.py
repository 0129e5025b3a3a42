"""What one worker that holds state takes of a machine: a block of recipes, and what the executor asks Ray for."""

from __future__ import annotations

from pydantic import Field
from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT, Amount


@dataclass(frozen=True, config=STRICT)
class Resources:
    """What one worker of a model takes, and how many there are.

    Attributes:
        cpus: cores of one worker, where the machine has them beside a core that decodes.
        gpus: GPUs of one worker; 0.25 lets four share one. 0 computes on CPUs.
        memory: bytes that one worker is taken to need; no more are started than fit.
        workers: how many; by default as many as the machine or cluster has room for.
    """

    cpus: float = Field(default=1.0, ge=0)
    gpus: float = Field(default=0.0, ge=0)
    memory: Amount | None = None
    workers: Amount | None = None
