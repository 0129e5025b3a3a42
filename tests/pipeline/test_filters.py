"""What every filter promises, run over every one of them, and the step around them."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.names import QUANTILES_FILE, name_scores
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    LEAST_IMAGES,
    WHOLE_SAMPLE,
    ImageStats,
    Node,
    Sample,
    SampleId,
    Verdict,
    read_verdicts,
    write_image_stats,
    write_samples,
)
from vlmill.pipeline.core.scores import Scores, write_scores
from vlmill.pipeline.filters import (
    FILTERS,
    CustomFilter,
    FilterStep,
    ImageQuality,
    Language,
    OptOut,
    ReadsLists,
    Shape,
    TextQuality,
    Threshold,
    Undecided,
    reads_tables,
)
from vlmill.pipeline.filters import custom as custom_filters
from vlmill.pipeline.filters.text_quality import TextBounds
from vlmill.pipeline.filters.threshold import Bound, OpenThreshold, name_cut

ENGLISH = "The harbour was frozen for most of the winter, and no ship could leave."
CHINESE = "港口在冬天的大部分时间里都结了冰，没有一艘船能够离开。"
JAPANESE = "港は冬のほとんどの間凍っていて、どの船も出ることができなかった。"

LOOP = "go to the next page and the next page of " * 20
ODD = [
    "",
    " \n\t",
    "\x00\x01",
    "\ufeff",
    "e\u0301" * 30,
    "\u202e\u05d0\u05d1",
    "👩\u200d🔬" * 5,
    "\uffff",
    "𠀀𠀁",
    "ก็" * 40,
    "x" * 5000,
]
EXAMPLES = Path(__file__).parents[2] / "examples"
OBELICS = TextBounds(
    min_words=4,
    max_words=1000,
    max_character_repetition=0.1,
    max_word_repetition=0.1,
    max_special_characters=0.3,
    min_stop_words=0.3,
    max_flagged_words=0.01,
    min_punctuation=0.001,
)


def example(name, **settings):
    """A custom filter, from the folder of examples."""
    code = custom_filters.read_code(EXAMPLES / "filters" / f"{name}.py")
    return CustomFilter(name, settings, custom_filters.hash_code(code), code, f"{name}.py")


def listed(kind):
    return (str(EXAMPLES / "opt_out" / f"{kind}.txt"),)


BOUNDS = {
    "any": {"sharp": {"min": 0.2}, "clean": {"max": 0.9}},
    "all": ({"sharp": {"max_quantile": 0.8}, "clean": {"min": 0.1}},),
}

EXAMPLE_FILTERS = {
    "language": Language(),
    "language, in doubt drop": Language(in_doubt="drop"),
    "language, keep one": Language(keep=("en",)),
    "shape": Shape(),
    "shape, narrow": Shape(min_side=150, max_ratio=2.0, min_images=1, max_images=2, min_words_per_image=20),
    "text_quality": TextQuality(),
    "text_quality, strict, turns too": TextQuality(node=OBELICS, sample=OBELICS, roles=("none", "user", "assistant")),
    "image_quality": ImageQuality(),
    "image_quality, sharp": ImageQuality(min_sharpness=100),
    "opt_out": OptOut(urls=listed("urls"), domains=listed("domains"), sha256=listed("sha256")),
    "threshold": parse_block(Threshold, BOUNDS, "threshold"),
    "threshold, samples": parse_block(Threshold, {**BOUNDS, "drops": "samples"}, "threshold"),
    "own, shouting": example("shouting"),
    "own, personal_data": example("personal_data"),
    "own, nsfw": example("nsfw"),
    "own, ratings": example("ratings", signal="punsafe", most=0.5),
}


def image_stats():
    sizes = [(640, 480), (16, 16), (4000, 100), (30000, 20000), (200, 199)]
    return [
        ImageStats(
            image,
            Reason.UNDECODABLE if image % 7 == 6 else None,
            width=width,
            height=height,
            contrast=image % 5 * 10.0,
            sharpness=image % 6 * 30.0,
            sha256="2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae" if image % 4 == 3 else "",
        )
        for image, (width, height) in enumerate(sizes * 4)
    ]


def documents():
    """Pages and conversations in three languages and mixtures, with images of all sizes, ratings, odd texts."""
    pieces = [
        ENGLISH,
        "目的",
        CHINESE,
        "",
        JAPANESE,
        "完成",
        "12 — 34",
        "Beijing (北京)",
        LOOP,
        "Write to ada@harbour.co.uk",
        ENGLISH.upper(),
    ]
    pieces += ODD
    hosts = [
        "http://a.gallery.example/1.png",
        "https://www.magazine.example/2023/cover.jpg?size=large",
        "http://img.example.org/x.png",
    ]
    made = []
    for row in range(30):
        texts = [Node("text", text=pieces[(row * 3 + place * (1 + row % 3)) % len(pieces)]) for place in range(row % 5)]
        images = [Node("image", image=(row + place) % 20, url=hosts[(row + place) % 3]) for place in range(row % 4)]
        nodes = [*texts[:2], *images, *texts[2:]]
        if row % 6 == 5:
            nodes = [
                Node("image", "user", image=row % 20, required=True),
                *(
                    Node("text", ("user", "assistant")[place % 2], place // 2, text=pieces[(row + place) % len(pieces)])
                    for place in range(4)
                ),
            ]
        signals = {"punsafe": row / 30} if row % 2 else {}
        page = "https://photographer.example/about" if row % 11 == 10 else ""
        made.append(Sample(SampleId("made", "a.parquet", row), tuple(nodes), url=page, signals=signals))
    return made


@cache
def signal_tables():
    """What made-up signals say of the images and samples of `documents()`: a number, or a reason for none."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    shown = [
        (row, index, node.image)
        for row, sample in enumerate(documents())
        for index, node in enumerate(sample.nodes)
        if node.image is not None
    ]
    write_made_scores(
        folder, "sharp", [(row, index, None if image % 7 == 6 else image / 20) for row, index, image in shown]
    )
    write_made_scores(folder, "clean", [(row, WHOLE_SAMPLE, row / 30) for row in range(30)])
    (folder / QUANTILES_FILE).write_text(json.dumps({name_cut("sharp", 0.8, ""): 0.75}))
    return {path.name: path for path in folder.iterdir()}


def write_made_scores(folder, name, values):
    rows, nodes, numbers = zip(*values, strict=True)
    found = np.array([[np.nan if number is None else number] for number in numbers], np.float32)
    reasons = tuple("crashed" if number is None else None for number in numbers)
    scores = Scores(np.array(rows, np.int32), np.array(nodes, np.int32), reasons, found)
    write_scores(folder / name_scores(name), scores, (name,))


def open_filter(filter_):
    return filter_.opened(signal_tables()) if reads_tables(filter_) else filter_


@pytest.fixture
def inputs(tmp_path):
    write_samples(tmp_path / "samples.parquet", documents())
    write_image_stats(tmp_path / "image_stats.parquet", image_stats())
    return {name: tmp_path / name for name in ("samples.parquet", "image_stats.parquet")}


@pytest.fixture(params=EXAMPLE_FILTERS.values(), ids=EXAMPLE_FILTERS.keys())
def filter_(request):
    return request.param


def findings(filter_, start=0, stop=None):
    """What a filter says about a slice of the documents, in a fixed order."""
    said = open_filter(filter_).decide(list(enumerate(documents()))[start:stop], image_stats())
    return sorted(said, key=lambda finding: (finding.sample, finding.node, isinstance(finding, Undecided)))


def run(filter_, inputs, folder):
    folder.mkdir()
    step = FilterStep(filter_)
    lists = {name: Path(path) for name, path in filter_.lists.items()} if isinstance(filter_, ReadsLists) else {}
    there = {**inputs, **lists, **signal_tables()}
    counts = step.run({name: there[name] for name in step.reads if name in there}, folder)
    return counts, folder / f"{filter_.name}.verdicts.parquet"


def test_every_filter_of_the_table_is_in_this_harness():
    assert {type(filter_) for filter_ in EXAMPLE_FILTERS.values()} == {*FILTERS.values(), CustomFilter}
    assert {filter_.name for filter_ in EXAMPLE_FILTERS.values() if isinstance(filter_, CustomFilter)} == {
        path.stem for path in (EXAMPLES / "filters").glob("*.py")
    }
    assert all(filter_.name == name for name, filter_ in FILTERS.items())


def test_every_filter_finds_something_to_drop_here_so_that_the_rest_means_something(filter_):
    assert any(isinstance(finding, Verdict) for finding in findings(filter_))


@pytest.mark.parametrize("name", [name for name, filter_ in FILTERS.items() if filter_ not in (OptOut, Threshold)])
def test_a_filter_is_asked_of_the_sources_that_it_names_alone(name):
    filter_ = next(filter_ for filter_ in EXAMPLE_FILTERS.values() if filter_.name == name)
    everything = findings(filter_)
    assert everything
    for names, of_made in ((("made",), True), (("web", "ma*"), True), (("web",), False), (("made-a",), False)):
        assert findings(replace(filter_, sources=names)) == (everything if of_made else [])


def test_verdicts_name_samples_and_nodes_that_exist_once_each_and_a_reason_of_the_list(filter_):
    verdicts = [finding for finding in findings(filter_) if isinstance(finding, Verdict)]
    places = [(verdict.sample, verdict.node) for verdict in verdicts]
    assert len(set(places)) == len(places)
    for verdict in verdicts:
        assert verdict.node in {WHOLE_SAMPLE, LEAST_IMAGES} or 0 <= verdict.node < len(
            documents()[verdict.sample].nodes
        )
        assert verdict.filter == filter_.name
        assert not verdict.reason.failed
        others = {f"filter:{filter_.name}", *(f"signal:{column}" for column in getattr(filter_, "columns", ()))}
        assert verdict.reason in set(Reason) or verdict.reason in others
        assert verdict.other == ""


@given(cuts=st.sets(st.integers(1, 29), max_size=5))
@settings(max_examples=15, deadline=None)
@pytest.mark.parametrize("name", EXAMPLE_FILTERS)
def test_verdicts_are_the_same_however_the_samples_are_cut_into_partitions(name, cuts):
    edges = [0, *sorted(cuts), 30]
    assert [
        finding for start, stop in pairwise(edges) for finding in findings(EXAMPLE_FILTERS[name], start, stop)
    ] == findings(EXAMPLE_FILTERS[name])


@given(numbers=st.lists(st.integers(0, 29), max_size=12))
@settings(max_examples=10, deadline=None)
@pytest.mark.parametrize("name", EXAMPLE_FILTERS)
def test_what_is_said_of_a_sample_does_not_depend_on_those_around_it_or_on_their_order(name, numbers):
    rows = list(dict.fromkeys(numbers))
    filter_ = open_filter(EXAMPLE_FILTERS[name])
    together = list(filter_.decide([(row, documents()[row]) for row in rows], image_stats()))
    alone = [list(filter_.decide([(row, documents()[row])], image_stats())) for row in rows]
    assert together == [finding for said in alone for finding in said]


@pytest.mark.parametrize("text", [*ODD, "\n".join(ODD)], ids=ascii)
def test_no_text_is_too_odd(filter_, text):
    sample = Sample(SampleId("made", "odd", 0), (Node("text", text=text), Node("text", text=ENGLISH)))
    for finding in open_filter(filter_).decide([(0, sample)], []):
        assert finding.node in (WHOLE_SAMPLE, 0, 1)


def test_samples_are_read_in_batches_and_never_all_at_once(filter_):
    came = []

    def endless():
        while True:
            came.append(1)
            yield from ((row, sample) for row, sample in enumerate(documents()))

    next(iter(open_filter(filter_).decide(endless(), image_stats())))
    assert len(came) < 10


def test_the_step_writes_what_the_filter_said_in_order_and_the_same_bytes_twice(filter_, inputs, tmp_path):
    _, first = run(filter_, inputs, tmp_path / "first")
    _, second = run(filter_, inputs, tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()
    written = [(verdict.sample, verdict.node, verdict.reason) for verdict in read_verdicts(first)]
    assert written == sorted(written)
    assert written == [(v.sample, v.node, v.reason) for v in findings(filter_) if isinstance(v, Verdict)]


def test_the_step_accounts_for_every_node_and_every_doubt(filter_, inputs, tmp_path):
    counts, path = run(filter_, inputs, tmp_path / "out")
    lost = {
        (verdict.sample, node)
        for verdict in read_verdicts(path)
        if verdict.node != LEAST_IMAGES  # drops nothing yet
        for node in (range(len(documents()[verdict.sample].nodes)) if verdict.node == WHOLE_SAMPLE else [verdict.node])
    }
    filtered, undecided = counts["filtered"], counts["undecided"]
    assert filtered.balanced()
    assert undecided.balanced()
    assert filtered.came == sum(len(sample.nodes) for sample in documents())
    assert sum(filtered.lost.values()) == len(lost)
    assert undecided.came == sum(isinstance(finding, Undecided) for finding in findings(filter_))


def test_an_empty_partition_has_an_empty_table_of_verdicts(filter_, inputs, tmp_path):
    write_samples(inputs["samples.parquet"], [])
    write_image_stats(inputs["image_stats.parquet"], [])
    counts, path = run(filter_, inputs, tmp_path / "out")
    assert list(read_verdicts(path)) == []
    assert counts["filtered"].came == 0


def test_the_step_waits_for_images_only_if_the_filter_looks_at_them():
    assert FilterStep(Language()).reads == ("samples.parquet",)
    assert FilterStep(Shape()).reads == ("samples.parquet", "image_stats.parquet")
    assert "image_stats.parquet" not in FilterStep(EXAMPLE_FILTERS["threshold"]).reads


def test_the_step_goes_by_the_name_and_version_of_its_filter(filter_):
    step = FilterStep(filter_)
    assert (step.name, step.version, step.pure) == (filter_.name, filter_.version, True)
    assert all(isinstance(value, str) for value in step.made_by().values())


def test_a_list_of_opt_outs_has_to_be_named():
    """Who forgets it would believe that something is kept out."""
    with pytest.raises(RecipeError, match=r"opt_out: names no list; give it files"):
        parse_block(OptOut, {}, "opt_out")


@pytest.mark.parametrize("name", sorted(FILTERS.keys() - {"opt_out"}))
def test_a_recipe_need_not_set_anything_and_may_not_set_what_does_not_exist(name):
    assert parse_block(FILTERS[name], {}, name) == FILTERS[name]()
    with pytest.raises(RecipeError, match="unknown key 'treshold'"):
        parse_block(FILTERS[name], {"treshold": 1}, name)


@pytest.mark.parametrize("bound", [0.1, 0.5, 0.9])
def test_a_threshold_says_the_same_whether_or_not_tables_say_first_which_samples_pass(monkeypatch, bound):
    group = {"sharp": Bound(min=bound), "clean": Bound(min=1 - bound)}
    filter_ = Threshold(all=(group,))
    found = findings(filter_)
    assert Undecided in {type(finding) for finding in found}
    monkeypatch.setattr(OpenThreshold, "_list_suspects", lambda *_: set(range(len(documents()))))
    assert findings(filter_) == found
