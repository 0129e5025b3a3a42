"""Coordinates from a source's rows to what models see: RefCOCO, Visual Genome, LRV and pointing rows, every policy."""

from __future__ import annotations

import io
import json
import re
from dataclasses import fields, replace

import numpy as np
import pytest
import yaml
from PIL import Image

import vlmill
from tests.helpers.drawing import join_view
from tests.helpers.marked_rows import SIZES, SOURCES, name_sources, write_marked_rows
from tests.helpers.small import RECIPE
from tests.helpers.small import vlmill as run_command
from tests.helpers.stages import write_tokenizer
from vlmill.mixtures.build import read_stats
from vlmill.mixtures.export.stage_records import StageRecords
from vlmill.mixtures.page.gallery import draw_tiles, make_cards
from vlmill.mixtures.reader import PlannedMixture
from vlmill.pipeline.boxes.marks import COLOUR
from vlmill.pipeline.chat.encode import load_tokenizer
from vlmill.pipeline.checks.preview import preview_source
from vlmill.pipeline.checks.preview_text import list_lines
from vlmill.pipeline.core.names import INDEX_SUFFIX
from vlmill.pipeline.core.sample import read_rows
from vlmill.pipeline.engine.chain import read_manifest, read_manifest_counts
from vlmill.pipeline.filters import Shape
from vlmill.pipeline.images import POLICIES, Policy
from vlmill.pipeline.images.anyres import AnyRes
from vlmill.pipeline.images.crop import Crop
from vlmill.pipeline.images.internvl import InternVL
from vlmill.pipeline.images.letterbox import Letterbox
from vlmill.pipeline.images.native import Native
from vlmill.pipeline.images.navit import NaViT
from vlmill.pipeline.images.patches import Patches
from vlmill.pipeline.images.pooled import Pooled
from vlmill.pipeline.images.resize import Resize
from vlmill.pipeline.images.tiles import Tiles
from vlmill.pipeline.page.preview import write_preview
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.reports.funnel import read_funnel
from vlmill.pipeline.reports.what_if import compare_recipes
from vlmill.pipeline.shards.writer import parse_members
from vlmill.train.data import decode_stored

SHOWN: dict[str, Policy] = {
    "anyres": AnyRes(side=112),
    "crop": Crop(side=336),
    "internvl": InternVL(side=112),
    "letterbox": Letterbox(side=224),
    "native": Native(max_pixels=1 << 17),
    "navit": NaViT(shortest=98, longest=280),
    "split": NaViT(shortest=98, longest=280, split=True),
    "patches": Patches(width=330, height=240),
    "pooled": Pooled(side=224),
    "resize": Resize(side=224),
    "tiles": Tiles(side=112, longest=448),
}
"""Every policy, at sizes that take no time."""
STAGE = {
    **RECIPE["stages"][0],
    "name": "sft",
    "policy": "letterbox",
    "train": {**RECIPE["stages"][0]["train"], "steps": 3},
    "mixture": {"repeat": dict.fromkeys(SOURCES, 1), "epochs": 1, "sequence_length": 2048},
}
MODEL = {**RECIPE["model"], "vision": {**RECIPE["model"]["vision"], "image_size": 224}}
TOLERANCE = {"lrv": 0.0, "loc": 2 / 1024, "pointing": 0.001, "refcoco": 0.001, "vg": 0.001}
"""Of a view's side: what the source's own numbers are rounded to. Beside it stands a pixel, and half a one of the
measure."""


CUT = len(SOURCES) + 1
"""Boxes at the left of the widest picture, and one of which a crop leaves a part, without its middle."""


def write_recipe(folder, **more):
    policies = {
        name: {"kind": policy.kind, **{field.name: getattr(policy, field.name) for field in fields(policy)}}
        for name, policy in SHOWN.items()
    }
    policies = json.loads(json.dumps(policies))
    recipe = {"name": "boxes", "sources": name_sources(), "filters": [], "dedupe": None, "policies": policies, **more}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A run with every policy, without stages."""
    folder = tmp_path_factory.mktemp("boxes")
    write_marked_rows(folder)
    write_tokenizer(folder / "tokenizer.json")
    assert run_command("build", write_recipe(folder), "--out", folder / "run", "--workers", "0") == 0
    return folder / "run"


def read_shards(root, source, policy):
    """Each sample of a source: its JSON and its parts."""
    for receipt in read_manifest(root, f"shards/{source}/{policy}"):
        files = {file.name: root / file.path for file in receipt.files}
        for name in sorted(name for name in files if name.endswith(INDEX_SUFFIX)):
            data = files[f"{name.removesuffix(INDEX_SUFFIX)}.tar"].read_bytes()
            for row in read_rows(files[name]):
                members = dict(parse_members(data[row["offset"] : row["offset"] + row["size"]]))
                yield json.loads(members.pop("json")), members


def read_numbers(source, text, view):
    """The corners that a text says, in pixels of the view: of boxes two, of a point one."""
    if source == "lrv":
        x, y, width, height = (float(number) for number in re.findall(r":(\d+)", text))
        return [(x, y), (x + width, y + height)]
    if source == "loc":
        top, left, bottom, right = (int(number) / 1024 for number in re.findall(r"<loc(\d{4})>", text))
        return [(left * view[0], top * view[1]), (right * view[0], bottom * view[1])]
    if source == "pointing":
        x, y = (float(number) / 100 for number in re.findall(r'="([\d.]+)"', text))
        return [(x * view[0], y * view[1])]
    found = [float(number) for number in re.search(r"\[(.*)\]", text)[1].split(",")]
    return [(found[at] * view[0], found[at + 1] * view[1]) for at in (0, 2)]


@pytest.mark.parametrize("name", SHOWN)
def test_texts_say_where_the_model_sees_the_box(built, name):
    policy, seen = SHOWN[name], 0
    for source, record, members in ((each, *found) for each in SOURCES for found in read_shards(built, each, name)):
        (size,) = ((node["width"], node["height"]) for node in record["nodes"] if node["kind"] == "image")
        (layout,) = policy.layout([size])
        parts = {part.split(".")[1]: decode_stored(data) for part, data in members.items()}
        view = join_view(policy, layout, policy.tiles(parts, layout))
        bright = np.argwhere(view[:, :, 0] > 137)
        (top, left), (bottom, right) = bright.min(axis=0), bright.max(axis=0) + 1
        drawn = [(left, top), (right, bottom)]
        if source == "pointing":
            drawn = [((left + right) / 2, (top + bottom) / 2)]
        (text,) = (node["text"] for node in record["nodes"] if node.get("boxes"))
        said = read_numbers(source, text, policy.view(layout))
        for corner, edge in zip(said, drawn, strict=True):
            for place, pixel, side in zip(corner, edge, view.shape[1::-1], strict=True):
                assert abs(place - pixel) <= 1.5 + TOLERANCE[source] * side, (source, size, text)
        seen += 1
    assert seen == len(SOURCES) * 2 * len(SIZES) - (CUT if name == "crop" else 0)


def test_what_if_counts_texts_that_are_bad_as_the_funnel_does(built):
    now = read_locked_recipe(built)
    then = replace(now, filters=(Shape(max_images=5),))
    kept = compare_recipes(built, now, then, None).sources["refcoco"]
    assert {level: (line.now, line.then) for level, line in kept.items()} == {
        "samples": (6, 6),
        "nodes": (18, 18),
        "images": (6, 6),
    }


def test_every_policy_is_among_them():
    assert {type(policy) for policy in SHOWN.values()} == {*POLICIES.values()}


def test_every_loss_has_a_reason_and_is_counted(built):
    found = read_funnel(built)
    failed = {"bad_box": 1, "box_without_image": 1}
    assert found["refcoco"]["boxes"] == {"in": 8, "kept": 6, "dropped": {}, "failed": failed}
    assert found["refcoco"]["nodes"]["failed"] == failed
    counts = read_manifest_counts(built / "shards/pointing/crop/manifest.json")[1]
    assert counts["boxes"] == {"in": 6, "kept": 4, "dropped": {"box_cut_away": 2}, "failed": {}}
    assert counts["nodes"]["dropped"]["box_cut_away"] == 2
    counts = read_manifest_counts(built / "shards/vg/crop/manifest.json")[1]
    assert (counts["boxes"]["kept"], counts["clipped_boxes"]["kept"]) == (5, 1)
    assert run_command("verify", built) == 0


def read_texts(root, images, folder):
    """The texts of an export of the stage."""
    records = StageRecords(root, "sft", "samples", images)
    for part in records.parts:
        for record in records.read(part, 0, folder):
            for message in record.messages:
                yield from (str(piece) for piece in message.parts)


def test_the_trainer_cards_and_exports_have_the_texts_of_the_shards(built, tmp_path):
    recipe = write_recipe(built.parent, tokenizer="tokenizer.json", stages=[STAGE], model=MODEL)
    assert run_command("build", recipe, "--out", built, "--workers", "0", "--accept-changes") == 0
    mixture = PlannedMixture(built, "sft")
    tokenizer = load_tokenizer(mixture.tokenizer, mixture.chat)
    trained = "".join(
        tokenizer.decode(row.tolist(), skip_special_tokens=False)
        for step in vlmill.open_run(built).stage("sft").batches()
        for batch in step
        for row in batch.ids
    )
    texts = [
        node["text"]
        for source in SOURCES
        for record, _ in read_shards(built, source, "letterbox")
        for node in record["nodes"]
        if node.get("boxes")
    ]
    assert len(texts) == 30
    assert [text for text in texts if text not in trained] == []
    asked = {images: "".join(read_texts(built, images, tmp_path)) for images in ("policy", "original")}
    assert all(text in asked["policy"] for text in texts)
    assert "[0.400, 0.300, 0.600, 0.700]" in asked["original"]
    assert "[0.400, 0.300, 0.600, 0.700]" not in asked["policy"]
    cards = make_cards(mixture, "answers", 1)
    assert all(card["pictures"] for card in cards)
    shown = mixture.sequence(0)[0]
    (stored,) = mixture.read([shown])
    (layout,), (marks,) = mixture.lay_out(stored.sizes), [found for found in stored.boxes if found]
    plain, marked = (np.asarray(draw_tiles(mixture, stored.parts[0], layout, found)) for found in ((), marks))
    changed = np.argwhere((plain != marked).any(axis=2))
    assert (marked == COLOUR).all(axis=2).any()
    edges = np.array(marks[0]["points"]) * mixture.policy.side
    assert np.abs(changed.min(axis=0)[::-1] - edges.min(axis=0)).max() < 12
    (note,) = (note for note in read_stats(built, "sft")["sft"]["notes"] if note.startswith("refcoco: 8"))
    assert note.endswith("8 boxes in texts: 6 kept (0 of them in part), 0 cut away by policy letterbox, 2 bad")


def test_preview_shows_the_texts_of_the_first_policy(built, tmp_path):
    recipe, _, base = load_recipe(str(write_recipe(built.parent, policies={"square": {"kind": "letterbox"}})))
    found = preview_source(recipe, base, "refcoco", 8)
    (node, text), *more = found.samples[0].texts.items()
    assert not more
    assert text == "[0.400, 0.388, 0.600, 0.612]"
    assert found.samples[0].traced.sample.nodes[node].text == "[0.400, 0.300, 0.600, 0.700]"
    picture = np.asarray(Image.open(io.BytesIO(found.samples[0].pictures[0])))
    assert picture.shape == (384, 384, 3)
    assert (picture == COLOUR).all(axis=2).any()
    assert [str(one.traced.outcome.nodes[-1]) for one in found.samples[6:]] == ["bad_box", "box_without_image"]
    assert f"node {node} under the first policy: {text}" in "\n".join(map(str, list_lines(found, pictures=False)))
    assert text in write_preview(tmp_path, "mine", [found]).read_text()
