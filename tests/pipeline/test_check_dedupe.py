"""The estimate of what dedupe costs: pictures made from templates are compared with each other, others are not."""

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.small import vlmill, write_recipe
from tests.helpers.upstream import cauldron, picture
from tests.pipeline.test_check import read_check
from vlmill.pipeline.checks import sample_costs
from vlmill.pipeline.checks.estimate import RunEstimate, SourceEstimate, extrapolate_pairs, make_work
from vlmill.pipeline.checks.estimate_table import list_dedupe_costs
from vlmill.pipeline.checks.looked_rows import LookedFile
from vlmill.pipeline.dedupe import Dedupe
from vlmill.pipeline.engine.chain import read_manifest_counts
from vlmill.pipeline.inputs.files import InputFile
from vlmill.pipeline.recipe.load import load_recipe

SCENES = 40


def draw_scenes(number):
    """Pictures of one template: the same frame, with a block elsewhere in each."""
    for place in range(number):
        image = Image.open(io.BytesIO(picture(1000, (96, 96))))
        image.paste((200, 30, 30), (8 + place % 10 * 8, 8 + place // 10 * 8, 14 + place % 10 * 8, 14 + place // 10 * 8))
        data = io.BytesIO()
        image.save(data, "PNG")
        yield data.getvalue()


@pytest.fixture
def recipe(tmp_path):
    answers = [("What stands in the corner?", "A block")]
    cauldron(tmp_path / "scenes.parquet", [([data], answers) for data in draw_scenes(SCENES)])
    cauldron(tmp_path / "photos.parquet", [([picture(n, (96, 96))], answers) for n in range(SCENES)])
    sources = {name: {"kind": "cauldron", "files": f"{name}.parquet"} for name in ("scenes", "photos")}
    return write_recipe(tmp_path, sources=sources, stages=[], model={})


def measure_pairs(path: Path, name: str, **sets: str):
    recipe, _, base = load_recipe(str(path), sets=sets)
    work = make_work(recipe, base, name, InputFile(name, 0, f"{name}.parquet", ""))
    *_, found = sample_costs.run_passes(work, [LookedFile(f"{name}.parquet", base / f"{name}.parquet", SCENES, 1)])
    assert found["costs"]["rows"] == SCENES
    return found["costs"]["amounts"].get("picture_pairs")


def test_pairs_of_pictures_are_those_that_a_build_compares(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(sample_costs, "SECONDS", 1e9)  # all rows are measured, however slow the machine is
    assert vlmill("build", recipe, "--out", tmp_path / "run", "--workers", 0) == 0
    compared = read_manifest_counts(tmp_path / "run/steps/dedupe/pairs/manifest.json")[1]["image_pairs"]["kept"]
    scenes, photos = (measure_pairs(recipe, name) for name in ("scenes", "photos"))
    assert scenes + photos == compared
    assert photos < SCENES * 0.5 < SCENES < scenes
    assert measure_pairs(recipe, "scenes", dedupe="null") is None


def test_pairs_grow_with_the_square_of_the_rows_up_to_the_cap():
    amounts = {"neighbours": 2.0, "picture_candidates": 300, "picture_pairs": 300, "pictures": 1000}
    assert extrapolate_pairs(amounts, 1000, 100, Dedupe()) == pytest.approx(300 * 10 * 10)
    assert extrapolate_pairs(amounts, 100_000, 100, Dedupe()) == pytest.approx(300 * 1000 * 32)
    assert extrapolate_pairs(amounts, 1000, 100, Dedupe(cap=1)) == pytest.approx(300 * 10)
    assert extrapolate_pairs(amounts, 1000, 100, None) == 0
    assert extrapolate_pairs({}, 1000, 100, Dedupe()) == 0
    few = {**amounts, "pictures": 100}
    assert 29 < extrapolate_pairs(few, 100_000, 100, Dedupe()) / (100 * 1000) <= 32, "32 are measured of each at most"


def test_sources_whose_time_is_mostly_dedupe_are_named_the_longest_first():
    def make(name, pairs, others):
        known = dict.fromkeys(("files", "bytes", "rows", "samples", "images", "requests", "image_bytes", "measured"), 1)
        return SourceEstimate(
            **known, source=name, table_bytes=1, shard_bytes={}, tokens={}, units={}, picture_pairs=10_000,
            unreadable=0, seconds={"pairs": pairs, "read": others}, rests_on="",
        )  # fmt: skip

    lines = list(list_dedupe_costs(RunEstimate((make("a", 9, 1), make("b", 1, 9), make("c", 600, 1)), 1)))
    assert [line.split()[4] for line in lines] == ["c", "a"]
    assert "about 10,000 pairs to compare, 10 min of one worker" in lines[0]


@pytest.mark.parametrize(("text", "said"), [(0.5, "about 27% are found"), (0.65, "about 79% are found"), (0.7, "")])
def test_check_says_how_many_texts_a_low_threshold_finds(text, said, tmp_path, capsys):
    status, found, error = read_check(capsys, write_recipe(tmp_path, dedupe={"text": text}))
    assert status == 0, error
    told = [line for line in found["warnings"] if line.startswith("dedupe.text")]
    assert len(told) == bool(said)
    assert all(said in line for line in told)
