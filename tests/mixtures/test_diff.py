"""How two mixtures differ, and by which names people call them."""

import io
import json

import pytest
from rich.console import Console

from tests.helpers.synthetic import Store, lone, quiz, web
from vlmill.mixtures.compare import make_difference, make_difference_table, pair_stages, read_stages
from vlmill.mixtures.config import MixtureSettings
from vlmill.pipeline.core.errors import RecipeError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Lock and statistics of a stage, and the folder that they lie in."""
    store = Store(tmp_path_factory.mktemp("diff"))
    store.add("web", web(1, 60))
    store.add("quiz", quiz(2, 40))
    lock, stats = store.lock(
        MixtureSettings(128, shares={"web": 0.4, "quiz": 0.6}, unit="tokens", tiles_per_sequence=4)
    )
    return lock, stats, store.inputs["stats.json"].parent


def changed(stats):
    other = json.loads(json.dumps(stats))
    other["sources"][0]["planned"]["samples"] += 5
    other["sources"][0]["planned"]["visual"] += 80
    other["sources"][1]["name"] = "exam"
    return other


def test_a_difference_counts_in_every_unit(made):
    found = make_difference(made[1], changed(made[1]))
    assert found["web"] == {"samples": 5, "images": 0, "text": 0, "visual": 80, "supervised": 0, "tokens": 0}
    assert found["quiz"]["tokens"] == -found["exam"]["tokens"] < 0
    assert found["total"] == found["web"]


def test_the_table_has_what_differs_and_names_what_does_not(made):
    console = Console(width=80, file=io.StringIO())
    other = changed(made[1])
    other["sources"][1]["name"] = "quiz"
    console.print(make_difference_table(made[1], other))
    lines = console.file.getvalue()
    assert "align -> align" in lines
    assert "web" in lines
    assert "+80" in lines
    assert "the same amounts: quiz" in lines


def test_the_table_has_the_shares_of_both_sides_where_all_samples_are_known(made):
    def show(before, after):
        console = Console(width=80, file=io.StringIO())
        console.print(make_difference_table(before, after))
        return [line.split()[:3] for line in console.file.getvalue().splitlines()]

    before, after = changed(made[1]), changed(made[1])
    for stats, counts in ((before, (30, 10)), (after, (30, 30))):
        for entry, samples in zip(stats["sources"], counts, strict=True):
            entry["planned"]["samples"] = samples
    assert ["exam", "25.0%", "50.0%"] in show(before, after)
    after["sources"][0]["planned"]["samples"] = None
    assert ["exam", "25.0%", "-"] in show(before, after)


def test_a_published_mixture_is_named_as_recipes_name_it():
    ((one, other),) = pair_stages("idefics2/stage1", "idefics2:stage2")
    assert (one["stage"], other["stage"]) == ("idefics2/stage1", "idefics2:stage2")
    with pytest.raises(RecipeError, match="idefics2 has no stage 'stage3'; it has stage1, stage2"):
        read_stages("idefics2/stage3")


def test_locks_can_be_set_beside_each_other(tmp_path):
    store = Store(tmp_path)
    store.add("web", lone([10] * 30))
    once, twice = (store.lock(MixtureSettings(64, repeat={"web": epochs}))[0] for epochs in (1, 2))
    found = make_difference(once, twice)["web"]
    assert (found["samples"], found["tokens"]) == (30, 300)


def test_a_lock_and_its_statistics_are_the_same_mixture(made):
    ((lock, stats),) = pair_stages(str(made[2] / "mixture.lock.json"), str(made[2] / "stats.json"))
    assert set(make_difference(lock, stats)["total"].values()) == {0}


def test_a_stage_of_a_published_mixture_is_called_by_name(made):
    (pair,) = pair_stages("prismatic:llava-v15", "prismatic:llava-lrv")
    assert make_difference(*pair)["lrv_instruct"]["samples"] == make_difference(*pair)["total"]["samples"] == 342_799
    assert [side["stage"] for side in pair] == ["prismatic:llava-v15", "prismatic:llava-lrv"]
    assert pair_stages("prismatic", "prismatic")[0][0]["stage"] == "prismatic:align"
    assert len(pair_stages("prismatic", "prismatic")) == len(read_stages("prismatic"))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("nothing", "prismatic", "'nothing' is no run's folder, no mixture.lock.json and no published mixture"),
        ("finevision", "llava_1_5", "no stage of one name to compare.*llava_1_5 has align, sft"),
        ("prismatic:lava", "prismatic:align", "prismatic has no stage 'lava'; it has align"),
    ],
)
def test_what_is_no_mixture_is_refused_with_what_there_is(before, after, message):
    with pytest.raises(RecipeError, match=message):
        pair_stages(before, after)


def test_a_file_of_another_kind_is_refused(tmp_path):
    for text in ("[]", "{", '{"stage": "a", "sources": [{"name": "web"}]}', '{"stage": "a", "sources": 3}'):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(RecipeError, match=r"neither a mixture.lock.json nor a stats.json"):
            read_stages(str(tmp_path / "other.json"))


def test_what_was_not_published_is_unknown_and_not_nothing(made):
    published = pair_stages("llava_next:sft", "llava_next:sft")[0][0]
    found = make_difference(made[1], published)
    assert found["llava_next"] == {
        "samples": 779_289,
        "images": None,
        "text": None,
        "visual": None,
        "supervised": None,
        "tokens": None,
    }
    assert found["web"]["images"] < 0
    assert found["total"]["samples"] == 779_289 - made[1]["total"]["samples"]
    assert found["total"]["images"] is found["total"]["tokens"] is None
    console = Console(width=80, file=io.StringIO())
    console.print(make_difference_table(made[1], published))
    assert "-: was not published" in console.file.getvalue()
