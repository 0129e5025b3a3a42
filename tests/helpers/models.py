"""Tiny models of transformers with random weights, saved as published ones are, and an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,!?'-"
SPECIALS = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
WORDS = len(LETTERS) + len(SPECIALS)


def save_tokenizer(folder: Path, longest: int) -> None:
    """A tokenizer of characters, with BOS and EOS."""
    vocabulary = {name: number for number, name in enumerate([*SPECIALS.values(), *LETTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", vocabulary["<s>"]), ("</s>", vocabulary["</s>"])]
    )
    whole = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=longest,
        model_input_names=["input_ids", "attention_mask"],
        padding_side="right",
        **SPECIALS,
    )
    whole.save_pretrained(folder)


def _text_tower(**more: Any) -> dict[str, Any]:
    return {
        "vocab_size": WORDS,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 48,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
        **more,
    }


def _vision_tower(**more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
        **more,
    }


def _save(model: Any, processor: Any, folder: Path, longest: int = 48) -> Path:
    for parameter in model.parameters():  # as initialised all outputs of so small a model are nearly alike
        torch.nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 else None
    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    save_tokenizer(folder, longest)
    return folder


def save_clip(folder: Path) -> Path:
    """A CLIP of 32 px that resizes the shorter side and crops."""
    torch.manual_seed(1)
    config = CLIPConfig(text_config=_text_tower(), vision_config=_vision_tower(), projection_dim=8)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32})
    return _save(CLIPModel(config), processor, folder)


def save_siglip(folder: Path) -> Path:
    """A SigLIP of 32 px that squashes."""
    torch.manual_seed(2)
    config = SiglipConfig(text_config=_text_tower(), vision_config=_vision_tower())
    return _save(SiglipModel(config), SiglipImageProcessorPil(size={"height": 32, "width": 32}), folder)


def save_classifier(folder: Path, labels: tuple[str, ...] = ("normal", "nsfw")) -> Path:
    """A ViT of 32 px that classifies."""
    torch.manual_seed(3)
    config = ViTConfig(
        **_vision_tower(), id2label=dict(enumerate(labels)), label2id={n: i for i, n in enumerate(labels)}
    )
    return _save(ViTForImageClassification(config), ViTImageProcessorPil(size={"height": 32, "width": 32}), folder)


def save_language_model(folder: Path) -> Path:
    """A Llama over characters."""
    torch.manual_seed(4)
    config = LlamaConfig(**_text_tower(max_position_embeddings=256))
    return _save(LlamaForCausalLM(config), None, folder, longest=256)


TURNS = (
    "{% for message in messages %}{{ message.role }}: {% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text | trim }}{% endif %}{% endfor %}</s>{% endfor %}"
)
"""A chat template of parts. It trims texts, as published ones do."""


def _save_chat_tokenizer(folder: Path, marks: list[str], template: str) -> Any:
    """The tokenizer with more special tokens and a chat template."""
    save_tokenizer(folder, 256)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    tokenizer.chat_template = template
    return tokenizer


def save_llava(folder: Path) -> Path:
    """A LLaVA of a CLIP of 32 px and a Llama over characters, with its processor and chat template."""
    torch.manual_seed(5)
    tokenizer = _save_chat_tokenizer(folder, ["<image>"], TURNS)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**_vision_tower()),
        text_config=LlamaConfig(**_text_tower(max_position_embeddings=256, vocab_size=WORDS + 1)),
        image_token_index=WORDS,
        image_seq_length=16,
        vision_feature_layer=-1,
    )
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = LlavaProcessor(
        images, tokenizer, patch_size=8, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=TURNS,
    )  # fmt: skip
    return _save_whole(LlavaForConditionalGeneration(config), processor, folder)


def save_idefics3(folder: Path) -> Path:
    """An Idefics3 of tiles of 32 px, whose processor writes rows and columns of tiles into the text."""
    torch.manual_seed(6)
    tiles = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    marks = ["<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *tiles]
    tokenizer = _save_chat_tokenizer(folder, marks, TURNS)
    config = Idefics3Config(
        vision_config=_vision_tower(),
        text_config=LlamaConfig(**_text_tower(max_position_embeddings=512, vocab_size=WORDS + len(marks))).to_dict(),
        image_token_id=WORDS,
        scale_factor=2,
    )
    images = Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})
    processor = Idefics3Processor(images, tokenizer, image_seq_len=4, chat_template=TURNS)
    return _save_whole(Idefics3ForConditionalGeneration(config), processor, folder)


def _save_whole(model: Any, processor: Any, folder: Path) -> Path:
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3) if parameter.ndim > 1 else None
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_onnx_mean(path: Path) -> Path:
    """An ONNX file whose output (n, 3) is the mean of each channel of pictures (n, 3, 8, 8).

    Written as protobuf by hand (onnx.proto of ONNX 1.7, operator set 13): GlobalAveragePool and Flatten.
    """
    ends = [(b"x", b"p", b"GlobalAveragePool"), (b"p", b"y", b"Flatten")]
    nodes = b"".join(_field(1, _field(1, first) + _field(2, last) + _field(4, kind)) for first, last, kind in ends)
    shapes = _field(11, _tensor(b"x", (None, 3, 8, 8))) + _field(12, _tensor(b"y", (None, 3)))
    graph = nodes + _field(2, b"mean") + shapes
    path.write_bytes(b"\x08\x08" + _field(7, graph) + _field(8, b"\x10\x0d"))
    return path


FACE = 32
"""Pixels of the side of a black square on the grid of that size, which the detectors below take for a face."""


def save_yunet(path: Path) -> Path:
    """An ONNX file with the outputs of YuNet: every black cell of FACE px is a face of that size, others none."""
    nodes, values, ends = [_pool(b"x", b"cells", FACE)], [], []
    for stride in (8, 16, 32):
        black = stride == FACE
        if not black:
            nodes.append(_pool(b"x", b"cells_%d" % stride, stride))
        source = b"cells" if black else b"cells_%d" % stride
        for part, bias in (("cls", [1]), ("obj", [1]), ("bbox", [0.5, 0.5, 0, 0]), ("kps", [0] * 10)):
            name = f"{part}_{stride}".encode()
            slope = -1 / 255 / 3 if black and len(bias) == 1 else 0.0
            weights = np.full((len(bias), 3, 1, 1), slope), np.array(bias if black or len(bias) > 1 else [0])
            values += [_number(name + end, value) for end, value in zip((b".w", b".b"), weights, strict=True)]
            nodes.append(_node("Conv", [source, name + b".w", name + b".b"], name + b".c"))
            nodes.append(_node("Transpose", [name + b".c"], name, perm=(0, 2, 3, 1)))
            ends.append(_tensor(name, (1, None, None, len(bias))))
    return _save_graph(path, nodes, values, ends)


def save_centerface(path: Path) -> Path:
    """The same with the outputs of CenterFace: black cells of 4 px, each a face of FACE px around it."""
    nodes, values, ends = [_pool(b"x", b"cells", 4)], [], []
    for name, slope, bias in (
        (b"537", -1 / 255 / 3, [1]),
        (b"538", 0.0, [np.log(FACE / 4)] * 2),
        (b"539", 0.0, [0, 0]),
        (b"540", 0.0, [0] * 10),
    ):
        values += [_number(name + b".w", np.full((len(bias), 3, 1, 1), slope)), _number(name + b".b", np.array(bias))]
        nodes.append(_node("Conv", [b"cells", name + b".w", name + b".b"], name))
        ends.append(_tensor(name, (1, len(bias), None, None)))
    return _save_graph(path, nodes, values, ends)


def _save_graph(path: Path, nodes: Sequence[bytes], values: Sequence[bytes], ends: Sequence[bytes]) -> Path:
    """A model of pictures (1, 3, 640, 640), as `save_onnx_mean` writes one."""
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, b"faces") + b"".join(_field(5, v) for v in values)
    graph += _field(11, _tensor(b"x", (1, 3, 640, 640))) + b"".join(_field(12, end) for end in ends)
    path.write_bytes(b"\x08\x08" + _field(7, graph) + _field(8, b"\x10\x0d"))
    return path


def _node(kind: str, inputs: Sequence[bytes], output: bytes, **more: Sequence[int]) -> bytes:
    """A NodeProto with attributes of whole numbers below 128."""
    told = b"".join(
        _field(5, _field(1, name.encode()) + b"".join(b"\x40" + bytes([n]) for n in numbers) + b"\xa0\x01\x07")
        for name, numbers in more.items()
    )
    return b"".join(_field(1, name) for name in inputs) + _field(2, output) + _field(4, kind.encode()) + told


def _pool(source: bytes, output: bytes, side: int) -> bytes:
    """The means of squares of a side."""
    return _node("AveragePool", [source], output, kernel_shape=(side, side), strides=(side, side))


def _number(name: bytes, value: np.ndarray) -> bytes:
    """A TensorProto of float32."""
    sizes = b"".join(b"\x08" + bytes([size]) for size in value.shape)
    return sizes + b"\x10\x01" + _field(8, name) + _field(9, value.astype("<f4").tobytes())


def _field(number: int, data: bytes) -> bytes:
    """A field of bytes: its tag, length and content."""
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    """A whole number, 7 bits a byte, the lowest first."""
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


def _tensor(name: bytes, shape: tuple[int | None, ...]) -> bytes:
    """A ValueInfoProto of float32; None is any length."""
    sizes = b"".join(_field(1, _field(2, b"n") if size is None else b"\x08" + _varint(size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, b"\x08\x01" + _field(2, sizes)))
