"""Exported models for lmms-eval: its plugin mechanism (the entry point `lmms_eval.models`) finds `manifest`, and its `--model vlmill` is `Exported`.

Imported by lmms-eval alone, in an environment of its own, and of ours it imports nothing. Its generic class `huggingface` does not serve here:
0.7.3 hands processors an argument that transformers 5 refuses, and stops only where a document ends, not where a turn does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, AutoProcessor

NEW_TOKENS = 256
"""Of an answer, where a task says nothing."""


def manifest() -> ModelManifest:
    """What lmms-eval is told of us."""
    return ModelManifest(model_id="vlmill", simple_class_path=f"{__name__}.Exported")


class Exported(lmms):  # type: ignore[misc]  # its classes have no types
    """A folder that `vlmill train` exported, asked one question at a time in one process."""

    is_simple = True

    def __init__(
        self,
        pretrained: str,
        device: str | None = None,
        dtype: str = "float32",
        trust_remote_code: bool = False,
        batch_size: int | str = 1,
    ) -> None:
        """Load the model; arguments are those of `--model_args`, and `--device` and `--batch_size`.

        Args:
            pretrained: the folder.
            device: of torch; None is a GPU if there is one.
            dtype: of the weights, by torch's name.
            trust_remote_code: run code from the folder, as fused towers want it.
            batch_size: has to be 1.

        Raises:
            ValueError: more is asked at a time.
        """
        super().__init__()
        if int(batch_size) != 1:
            raise ValueError(f"batch_size: {batch_size}; exports of vlmill are asked one question at a time, so take 1")
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        read = {"pretrained_model_name_or_path": pretrained, "trust_remote_code": trust_remote_code}
        self.processor = AutoProcessor.from_pretrained(**read)
        self.model = AutoModelForImageTextToText.from_pretrained(**read, dtype=getattr(torch, dtype))
        self.model.to(self.device).eval()

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answer to each request, in order: greedily, unless its task asks for a temperature."""
        answers = []
        for request in tqdm(requests, desc="answers"):
            question, settings, visuals, document, task, split = request.args
            images = visuals(self.task_dict[task][split][document]) or []
            answers.append(self._answer(question, images, settings))
            self.cache_hook.add_partial("generate_until", (question, settings), answers[-1])
        return answers

    def _answer(self, question: str, images: Sequence[Any], settings: dict[str, Any]) -> str:
        content = [*({"type": "image", "image": image} for image in images), {"type": "text", "text": question}]
        text = self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = self.processor(images=list(images) or None, text=text, return_tensors="pt").to(self.device)
        warm = settings.get("temperature") or 0
        how = {"do_sample": True, "temperature": warm, "top_p": settings.get("top_p")} if warm else {"do_sample": False}
        with torch.inference_mode():
            said = self.model.generate(**inputs, max_new_tokens=settings.get("max_new_tokens") or NEW_TOKENS, **how)
        answer = str(self.processor.decode(said[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
        stops = settings.get("until") or []
        for stop in [stops] if isinstance(stops, str) else stops:
            answer = answer.partition(stop)[0] if stop else answer
        return answer.strip()

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not offered."""
        raise NotImplementedError("exports of vlmill answer questions; take a task whose output_type is generate_until")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered."""
        raise NotImplementedError(
            "exports of vlmill answer in one round; take a task whose output_type is generate_until"
        )
