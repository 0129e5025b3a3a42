"""Models in ONNX files. The only file that imports onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from vlmill.pipeline.core.errors import RecipeError


def open_session(path: Path, *, threads: int, gpu: bool) -> Any:
    """A session of a model.

    Raises:
        RecipeError: the file is none, or there is no GPU that onnxruntime sees.
    """
    provider = "CUDAExecutionProvider" if gpu else "CPUExecutionProvider"
    if provider not in onnxruntime.get_available_providers():
        raise RecipeError("resources.gpus: this onnxruntime sees no GPU; take 0, or install onnxruntime-gpu")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=[provider])
    except Exception as error:  # its errors have no common class that is public
        raise RecipeError(f"{path} is no model that onnxruntime reads: {error}") from error


def run_session(session: Any, pixels: np.ndarray) -> np.ndarray:
    """The first output, a row for each picture: (n, values) float32. A model of one picture is asked for each alone."""
    (name, shape), *more = [(found.name, found.shape) for found in session.get_inputs()]
    if more:
        raise RecipeError(f"the ONNX model has {1 + len(more)} inputs; allowed: one, of pictures")
    parts = np.split(pixels, len(pixels)) if shape[0] == 1 else [pixels]
    rows = [np.asarray(session.run(None, {name: np.ascontiguousarray(part)})[0], np.float32) for part in parts]
    return np.concatenate([row.reshape(len(part), -1) for row, part in zip(rows, parts, strict=True)])
