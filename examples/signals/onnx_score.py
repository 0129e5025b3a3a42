"""A signal of an ONNX model: a file that takes pictures as (n, 3, side, side) of 0 to 1 and gives (n, 1)."""

from dataclasses import dataclass

import numpy as np
import onnxruntime


@dataclass(frozen=True)
class OnnxScore:
    """What the model in `path` says of each image."""

    name = "onnx_score"
    side = 224
    path: str = "model.onnx"

    def load(self):
        """A session."""
        return onnxruntime.InferenceSession(self.path, providers=["CPUExecutionProvider"])

    def score(self, model, batch):
        """A number for each place of the batch."""
        pixels = batch.images.transpose(0, 3, 1, 2).astype(np.float32) / 255
        return model.run(None, {model.get_inputs()[0].name: pixels})[0][:, 0]
