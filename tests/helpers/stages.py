"""Makes small runs that are ready to train on: shards, indices, lengths, plan and lock.

They have the formats of docs/formats.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.distributed.checkpoint import FileSystemReader, load

from vlmill.mixtures.steps.lock import HELD_OUT_ROWS, LOCK_VERSION
from vlmill.mixtures.steps.plan import SEQUENCES
from vlmill.pipeline.chat.settings import Chat, describe_chat, find_format
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.sample import Node, Sample, SampleId, read_rows
from vlmill.pipeline.core.seal import seal_json
from vlmill.pipeline.engine.chain import write_manifest
from vlmill.pipeline.engine.store import File, Receipt
from vlmill.pipeline.images import Policy
from vlmill.pipeline.images.anyres import AnyRes
from vlmill.pipeline.images.connector import TILE_TOKENS, read_tile_tokens
from vlmill.pipeline.images.letterbox import Letterbox
from vlmill.pipeline.images.pixels import encode_image
from vlmill.pipeline.shards.writer import Rendered, ShardSample, ShardWriter
from vlmill.pipeline.steps.token_lengths import make_length_step
from vlmill.train.settings import Machine, ModelSettings

LETTERBOX = Letterbox(side=28, patch=14)
ANYRES = AnyRes(side=28, patch=14, pinpoints=((28, 56), (56, 28), (56, 56)))
COLOURS = {"red": (220, 40, 30), "green": (30, 180, 60), "blue": (40, 60, 210), "yellow": (230, 210, 40)}
MACHINE = Machine(device="cpu", threads=1, readers=2, ahead=2)

Made = tuple[Sequence[Node], Sequence[Image.Image]]


def model_settings(family: str = "llava_next", vision: str = "siglip") -> ModelSettings:
    tower = {"kind": vision, "hidden_size": 32, "layers": 2, "heads": 2, "image_size": 28, "patch_size": 14}
    text = {"kind": "llama", "hidden_size": 64, "layers": 2, "heads": 2}
    return parse_block(ModelSettings, {"family": family, "vision": tower, "text": text}, "model")


def published(folder: Path, dtype: torch.dtype) -> ModelSettings:
    """The same model as `model_settings()`, with towers that lie in a folder in some dtype, as people publish them."""
    from transformers import AutoModel, AutoModelForCausalLM, LlamaConfig, SiglipVisionConfig

    sizes = {"num_hidden_layers": 2, "num_attention_heads": 2}
    vision = SiglipVisionConfig(hidden_size=32, intermediate_size=128, image_size=28, patch_size=14, **sizes)
    text = LlamaConfig(vocab_size=300, hidden_size=64, intermediate_size=128, **sizes)
    AutoModel.from_config(vision).to(dtype).save_pretrained(folder / "vision")
    AutoModelForCausalLM.from_config(text).to(dtype).save_pretrained(folder / "text")
    parts = {name: {"kind": "pretrained", "path": str(folder / name)} for name in ("vision", "text")}
    return parse_block(ModelSettings, {"family": "llava_next", **parts}, "model")


def write_tokenizer(path: Path) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = ["What colour is it?", "It is the colour of the picture", *COLOURS] * 4
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.save(str(path))
    return path


def picture(colour: str, number: int) -> Image.Image:
    """A picture of one colour; size and shade differ by number."""
    size = (20 + 13 * number % 37, 20 + 7 * number % 41)
    shade = number % 9 - 4
    return Image.new("RGB", size, tuple(value + 2 * shade for value in COLOURS[colour]))


def question(number: int) -> Made:
    """A picture, and the question what colour it is. The four colours take turns."""
    colour = list(COLOURS)[number % 4]
    nodes = (
        Node("image", "user", image=0, required=True),
        Node("text", "user", text="What colour is it?"),
        Node("text", "assistant", supervised=True, text=colour),
    )
    return nodes, [picture(colour, number)]


def article(number: int) -> Made:
    """A document of texts and two pictures."""
    colours = list(COLOURS)
    nodes = (
        Node("text", text=f"Picture {number} comes first."),
        Node("image", image=0),
        Node("text", text="It is the colour of the picture."),
        Node("image", image=1),
        Node("text", text="The end."),
    )
    return nodes, [picture(colours[number % 4], number), picture(colours[number // 4 % 4], number + 5)]


def write_shards(
    root: Path,
    source: str,
    policy: Policy,
    made: Sequence[Made],
    per_shard: int = 24,
    chat: Chat = "vlmill",
    connector: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """The shards of a source as the lock lists them; lengths lie beside them as `<nn>.lengths.parquet`."""
    folder = root / "shards" / source / policy.kind
    folder.mkdir(parents=True)
    with ShardWriter(folder, per_shard, 1 << 30) as shards:
        for row, (nodes, pictures) in enumerate(made):
            sample = Sample(SampleId(source, "made", row), tuple(nodes), licence="CC0-1.0")
            shards.add(ShardSample(f"{row:015d}", sample, tuple(range(len(nodes))), tuple(render(policy, pictures))))
    inputs = {path.name: path for path in folder.iterdir()} | {"tokenizer.json": root / "tokenizer.json"}
    make_length_step(chat, policy, {"connector": connector}).run(inputs, folder)
    files = [File(x.name, str(x.relative_to(root)), hash_file(x), x.stat().st_size) for x in sorted(folder.iterdir())]
    write_manifest(root, str(folder.relative_to(root)), [Receipt("made", "made", tuple(files), {}, {})])
    tars = sorted(folder.glob("*.tar"))
    indices = [tar.with_name(tar.name.replace(".tar", ".index.parquet")) for tar in tars]
    return [
        {
            "path": str(tar.relative_to(root)),
            "index": str(index.relative_to(root)),
            "sha256": hash_file(tar),
            "index_sha256": hash_file(index),
            "lengths": str(index.relative_to(root)).replace(".index.", ".lengths."),
            "samples": pq.read_metadata(index).num_rows,
        }
        for tar, index in zip(tars, indices, strict=True)
    ]


def saved_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The weights in a checkpoint, by parameter."""
    metadata = FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    state = {"model": {}}
    for name, item in metadata.items():
        if name.startswith("model."):
            state["model"][name.removeprefix("model.")] = torch.empty(item.size, dtype=item.properties.dtype)
    load(state, checkpoint_id=checkpoint, no_dist=True)
    return state["model"]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of weights are the same to the bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def render(policy: Policy, pictures: Sequence[Image.Image]) -> list[Rendered]:
    layouts = policy.layout([image.size for image in pictures])
    return [
        Rendered(
            layout,
            {
                partition: encode_image(drawn, policy.quality)
                for partition, drawn in policy.render(image, layout).items()
            },
        )
        for image, layout in zip(pictures, layouts, strict=True)
    ]


def write_run(
    root: Path,
    sources: dict[str, Sequence[Made]],
    policy: Policy = ANYRES,
    stage: str = "align",
    length: int = 160,
    hold_out: int = 0,
    epochs: int = 1,
    chat: Chat = "vlmill",
    per_shard: int = 24,
    connector: Mapping[str, Any] | None = None,
) -> Path:
    """A run with one mixture: sources in turns, every sample `epochs` times, packed in order.

    The last `hold_out` of each source are held out.
    """
    root.mkdir(parents=True, exist_ok=True)
    if not (root / "tokenizer.json").exists():
        write_tokenizer(root / "tokenizer.json")
    shards = [write_shards(root, f"{name}", policy, made, per_shard, chat, connector) for name, made in sources.items()]
    tile = read_tile_tokens({"connector": connector}, policy)
    samples, held_out = [], []
    for source, files in enumerate(shards):
        mine = [segment for shard, file in enumerate(files) for segment in _segments(root, source, shard, file, chat)]
        samples.append(mine[: len(mine) - hold_out])
        held_out += mine[len(mine) - hold_out :]
    turns = [
        segment for place in range(max(map(len, samples))) for mine in samples for segment in mine[place : place + 1]
    ]
    folder = root / "mixtures" / stage
    (folder / "plan").mkdir(parents=True)
    packed = _pack(turns * epochs, length)
    blocks = []
    for number, start in enumerate(range(0, len(packed), 8)):
        path = folder / "plan" / f"{number:05d}.parquet"
        pq.write_table(pa.Table.from_pylist(packed[start : start + 8], SEQUENCES), path)
        blocks.append(
            {
                "path": f"plan/{path.name}",
                "first": start,
                "sequences": len(packed[start : start + 8]),
                "sha256": hash_file(path),
            }
        )
    places = [{name: segment[name] for name in HELD_OUT_ROWS.names} for segment in held_out]
    pq.write_table(pa.Table.from_pylist(places, HELD_OUT_ROWS), folder / "held_out.parquet")
    lock = {
        "version": LOCK_VERSION,
        "stage": stage,
        "seed": 0,
        "sequence_length": length,
        "shard_window": 8,
        "policy": {"kind": policy.kind, **asdict(policy), **({TILE_TOKENS: asdict(tile)} if tile else {})},  # type: ignore[call-overload]
        "tokenizer": {"path": "tokenizer.json", "sha256": hash_file(root / "tokenizer.json")},
        "chat": describe_chat(chat),
        "sources": [
            {"name": name, "label": name, "shards": files} for name, files in zip(sources, shards, strict=True)
        ],
        "plan": {"sequences": len(packed), "blocks": blocks},
        "held_out": {"path": "held_out.parquet", "sha256": hash_file(folder / "held_out.parquet")},
    }
    (folder / "mixture.lock.json").write_text(seal_json(lock))
    return root


def lock_recipe(root: Path, train: dict[str, Any], stage: str = "align", model: ModelSettings | None = None) -> Path:
    """Give a run of `write_run` with one source, `quiz`, the recipe that it would have been built from."""
    recipe = {
        "name": "one-stage",
        "sources": {"quiz": {"kind": "cauldron", "files": "*.parquet"}},
        "policies": {"tiles": {"kind": ANYRES.kind, **asdict(ANYRES)}},
        "stages": [
            {
                "name": stage,
                "policy": "tiles",
                "mixture": {"shares": {"quiz": 1}, "sequence_length": 160},
                "train": train,
            }
        ],
        "model": asdict(model or model_settings()),
    }
    (root / "recipe.lock.yaml").write_text(yaml.safe_dump(to_lists(recipe)))
    return root


def to_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: to_lists(item) for name, item in value.items()}
    return [to_lists(item) for item in value] if isinstance(value, (list, tuple)) else value


def _segments(root: Path, source: int, shard: int, file: dict[str, Any], chat: Chat) -> list[dict[str, int]]:
    lengths = (root / file["path"]).with_name(Path(file["path"]).name.replace(".tar", ".lengths.parquet"))
    return [
        {
            "source": source,
            "shard": shard,
            "row": row["row"],
            "first": 0,
            "last": len(row["nodes"]),
            "begin": 0,
            "end": -1,
            "epoch": 0,
            "tokens": row["text"] + row["visual"] + find_format(chat).overhead,
            "tiles": row["tiles"],
        }
        for row in read_rows(lengths)
    ]


def _pack(segments: Sequence[dict[str, int]], length: int) -> list[dict[str, Any]]:
    sequences: list[list[dict[str, int]]] = [[]]
    for segment in segments:
        if sum(item["tokens"] for item in sequences[-1]) + segment["tokens"] > length:
            sequences.append([])
        sequences[-1].append(segment)
    return [
        {name: sum(item[name] for item in sequence) for name in ("tokens", "tiles")} | {"segments": sequence}
        for sequence in sequences
    ]
