"""A signal of a torch model: a TorchScript file that takes pictures as (n, 3, side, side) of 0 to 1 and gives (n,)."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class TorchHead:
    """What the model in `path` says of each image."""

    name = "torch_head"
    side = 224
    path: str = "model.pt"

    def load(self):
        """The model, on one thread."""
        torch.set_num_threads(1)
        return torch.jit.load(self.path).eval()

    def score(self, model, batch):
        """A number for each place of the batch."""
        with torch.inference_mode():
            return model(torch.from_numpy(batch.images).permute(0, 3, 1, 2) / 255).flatten().numpy()
