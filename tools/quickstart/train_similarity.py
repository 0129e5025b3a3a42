"""Train the quickstart's tiny dual encoder: does a caption fit its picture?

    python -m tools.quickstart.train_similarity [FOLDER]

Draws pictures of scenes and captions as `generate.py` does, other ones than the quickstart shows, and trains a CLIP
(Radford et al. 2021, arXiv:2103.00020) of 0.2 million weights on them, for some three minutes of a core. The folder
(recipes/quickstart/similarity unless another is named) gets what transformers reads: weights in float16, configuration,
tokenizer of words, preprocessing. Then `measure_auc` says how well it tells right captions from shuffled ones, on
pictures and captions that the quickstart ships and the training has not seen. The files are shipped; a build does not
train them. Another processor or version of torch gives other weights.
"""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

from tools.quickstart.generate import DATA
from tools.quickstart.scenes import describe, imagine, paint

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = DATA / "similarity"
PAIRS, EPOCHS, BATCH, SIDE, WORDS = 6000, 16, 64, 56, 24
LAYOUTS = ("single", "pair", "count")
MARKS, NAMES = ("<pad>", "<unk>", "<s>", "</s>"), ("pad_token", "unk_token", "bos_token", "eos_token")
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # CLIP's


def draw_pairs(number: int, seed: str) -> tuple[np.ndarray, list[str]]:
    """Pictures (number, side, side, 3) uint8, squashed to a square, with a true sentence about each."""
    rng, pictures, captions = Random(seed), list[np.ndarray](), list[str]()
    for place in range(number):
        scene = imagine(rng.randrange(10_000), rng, LAYOUTS[place % 3])  # type: ignore[arg-type]
        pictures.append(np.asarray(paint(scene).convert("RGB").resize((SIDE, SIDE), 3)))
        captions.append(describe(scene, rng))
    return np.stack(pictures), captions


def make_tokenizer(captions: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of the words of captions, in lower case; any other word is unknown."""
    normalizer, splitter = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    words = {word for text in captions for word, _ in splitter.pre_tokenize_str(text.lower())}
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate([*MARKS, *sorted(words)])}, "<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", MARKS.index("<s>")), ("</s>", MARKS.index("</s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=WORDS, padding_side="right",
        model_input_names=["input_ids", "attention_mask"], **dict(zip(NAMES, MARKS, strict=True)),
    )  # fmt: skip


def make_model(words: int) -> CLIPModel:
    """A new CLIP for so many words."""
    shared = {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
    return CLIPModel(
        CLIPConfig(
            text_config={
                **shared, "vocab_size": words, "max_position_embeddings": WORDS,
                "pad_token_id": 0, "bos_token_id": MARKS.index("<s>"), "eos_token_id": MARKS.index("</s>"),
            },
            vision_config={**shared, "image_size": SIDE, "patch_size": 8},
            projection_dim=48,
        )
    )  # fmt: skip


def normalise_pictures(pictures: np.ndarray) -> torch.Tensor:
    """Pixels (n, 3, side, side) as CLIP's processor gives them."""
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def train(model: CLIPModel, pixels: torch.Tensor, texts: Any) -> None:
    """The contrastive loss of CLIP, with AdamW and a cosine schedule."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    steps = EPOCHS * (len(pixels) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for epoch in range(EPOCHS):
        total, order = 0.0, torch.randperm(len(pixels))[: len(pixels) // BATCH * BATCH]
        for part in order.view(-1, BATCH):
            found = model(
                pixel_values=pixels[part],
                input_ids=texts["input_ids"][part],
                attention_mask=texts["attention_mask"][part],
                return_loss=True,
            )
            optimizer.zero_grad()
            found.loss.backward()
            optimizer.step()
            schedule.step()
            total += found.loss.item()
        print(f"epoch {epoch + 1}: loss {total * BATCH / len(order):.3f}", flush=True)


@torch.inference_mode()
def measure_auc(model: CLIPModel, pixels: torch.Tensor, texts: Any) -> float:
    """How often the right caption of a picture is nearer to it than the caption of another picture is to that one."""
    images = model.get_image_features(pixel_values=pixels).pooler_output
    words = model.get_text_features(**{name: texts[name] for name in ("input_ids", "attention_mask")}).pooler_output
    images, words = (functional.normalize(vectors, dim=-1) for vectors in (images, words))
    right = (images * words).sum(-1)
    shuffled = (images * words.roll(1, 0)).sum(-1)
    return float((right[:, None] > shuffled[None]).float().mean())


def main(folder: Path) -> None:
    """Train, save, measure."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    pictures, captions = draw_pairs(PAIRS, "train")
    tokenizer = make_tokenizer(captions)
    model = make_model(len(tokenizer))
    texts = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt")
    train(model, normalise_pictures(pictures), texts)
    model.eval()
    shown, said = draw_pairs(1000, "held out")
    held_out = tokenizer(said, padding="max_length", truncation=True, return_tensors="pt")
    print(f"AUC on 1000 scenes that were not trained on: {measure_auc(model, normalise_pictures(shown), held_out):.3f}")
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor = CLIPImageProcessorPil(size={"height": SIDE, "width": SIDE}, do_center_crop=False)
    processor.save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
