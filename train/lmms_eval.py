"""Exported models for lmms-eval, found by its plugin mechanism: `--model vlmill` is `ExportedModel`.

The entry point `lmms_eval.models` names `make_manifest`. Imported by lmms-eval alone, in its environment, and
of ours it imports nothing. Its generic class `huggingface` does not serve here:
0.7.3 hands processors an argument that transformers 5 refuses, and stops only where a document ends, not where a turn
does.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, islice
from typing import Any

import torch
from lmms_eval.api.model import lmms
from lmms_eval.models.registry_v2 import ModelManifest
from tqdm import tqdm
from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor

NEW_TOKENS = 256
"""Of an answer, where a task says nothing."""


def make_manifest() -> ModelManifest:
    """The manifest for lmms-eval."""
    return ModelManifest(model_id="vlmill", simple_class_path=f"{__name__}.ExportedModel")


class ExportedModel(lmms):  # type: ignore[misc]  # its classes have no types
    """A folder that `vlmill train` exported, asked in one process, `batch_size` questions at a time."""

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
            batch_size: of questions; the processor pads them left.

        Raises:
            ValueError: the batch is no number from 1 on.
        """
        super().__init__()
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise ValueError(f"batch_size: {batch_size}; exports of vlmill take a number of questions, from 1 on")
        self.questions = int(batch_size)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        read = {"pretrained_model_name_or_path": pretrained, "trust_remote_code": trust_remote_code}
        self.processor = AutoProcessor.from_pretrained(**read)
        self.processor.image_processor = AutoImageProcessor.from_pretrained(**read, backend="pil")  # as in training
        self.model = AutoModelForImageTextToText.from_pretrained(**read, dtype=getattr(torch, dtype))
        self.model.to(self.device).eval()

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The answer to each request, in order: greedily, unless its task asks for a temperature."""
        asked = (self._asked(*request.args) for request in tqdm(requests, desc="answers"))
        answers = list[str]()
        for (settings, _), alike in groupby(asked, key=lambda one: (one[1], bool(one[2]))):
            while some := list(islice(alike, self.questions)):
                said = self._answers([question for question, *_ in some], settings, [images for *_, images in some])
                answers += said
                for (question, *_), answer in zip(some, said, strict=True):
                    self.cache_hook.add_partial("generate_until", (question, settings), answer)
        return answers

    def _asked(
        self, question: str, settings: dict[str, Any], visuals: Any, document: Any, task: str, split: str
    ) -> tuple[str, dict[str, Any], list[Any]]:
        """A request: the question, how it is answered, and the images that its task shows with it."""
        return question, settings, list(visuals(self.task_dict[task][split][document]) or [])

    def _answers(self, questions: list[str], settings: dict[str, Any], images: list[list[Any]]) -> list[str]:
        """The answers to questions about images, in one batch; either all questions have images or none has."""
        turns = [
            [*({"type": "image", "image": image} for image in shown), {"type": "text", "text": question}]
            for question, shown in zip(questions, images, strict=True)
        ]
        texts = [
            self.processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            for content in turns
        ]
        shown = images if any(images) else None
        inputs = self.processor(images=shown, text=texts, padding=True, return_tensors="pt").to(self.device)
        warm = settings.get("temperature") or 0
        how = {"do_sample": True, "temperature": warm, "top_p": settings.get("top_p")} if warm else {"do_sample": False}
        with torch.inference_mode():
            said = self.model.generate(**inputs, max_new_tokens=settings.get("max_new_tokens") or NEW_TOKENS, **how)
        new = said[:, inputs["input_ids"].shape[1] :]
        return [_cut_answer(text, settings) for text in self.processor.batch_decode(new, skip_special_tokens=True)]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """Not offered."""
        raise NotImplementedError("exports of vlmill answer questions; take a task whose output_type is generate_until")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        """Not offered."""
        raise NotImplementedError(
            "exports of vlmill answer in one round; take a task whose output_type is generate_until"
        )


def _cut_answer(answer: str, settings: dict[str, Any]) -> str:
    """An answer up to the first of the texts that its task ends it with."""
    stops = settings.get("until") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        answer = answer.partition(stop)[0] if stop else answer
    return answer.strip()
