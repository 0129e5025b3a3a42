"""What a person sees of a planned mixture in a terminal."""

import io
import json

import pytest
from rich.console import Console

from tests.helpers.synthetic import OVERHEAD, Store, lone, quiz, web
from vlmill.mixtures.config import MixtureSettings
from vlmill.mixtures.report.stats import make_stats_table, shorten_number, to_json


@pytest.fixture(scope="module")
def stats(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("stats"))
    store.add("web", web(1, 100))
    store.add("quiz", quiz(2, 80), licence="")
    return store.lock(
        MixtureSettings(
            128, shares={"web": 0.4, "quiz": 0.6}, unit="tokens", epochs=2, tiles_per_sequence=4, held_out={"web": 0.1}
        )
    )[1]


def shown(found, width=160):
    console = Console(width=width, file=io.StringIO())
    console.print(found)
    return console.file.getvalue()


def test_sums_are_those_of_the_sources(stats):
    for unit in ("samples", "images", "text", "visual", "supervised", "tokens", "segments", "tiles"):
        assert stats["total"][unit] == sum(source["planned"][unit] for source in stats["sources"])
    assert (
        stats["total"]["tokens"]
        == stats["total"]["text"] + stats["total"]["visual"] + OVERHEAD * stats["total"]["segments"]
    )


def test_realised_shares_stand_in_every_unit_beside_the_declared(stats):
    assert [source["declared"] for source in stats["sources"]] == [0.4, 0.6]
    assert [source["realised"]["tokens"] for source in stats["sources"]] == pytest.approx([0.4, 0.6], abs=0.01)
    for unit in ("samples", "images", "text", "visual", "supervised"):
        assert sum(source["realised"][unit] for source in stats["sources"]) == pytest.approx(1, abs=1e-5)


def test_efficiency_is_tokens_over_what_rows_could_hold(stats):
    packing = stats["packing"]
    assert packing["efficiency"] == pytest.approx(stats["total"]["tokens"] / (packing["sequences"] * 128), abs=1e-6)
    assert packing["tiles_per_sequence"]["most"] <= packing["tiles_per_sequence"]["budget"] == 4


def test_losses_stand_by_cause(stats):
    assert stats["sources"][0]["lost"]["samples"]["held_out"] > 0
    assert stats["sources"][0]["lost"]["nodes"]["held_out"] > 0


def test_the_table_shows_it_at_a_glance(stats):
    lines = " ".join(shown(make_stats_table(stats)).split())
    assert "align: shares in tokens" in lines
    assert "40.00%" in lines
    assert "times the tokens there are" in lines
    added = shorten_number(OVERHEAD * stats["total"]["segments"])
    assert f"tokens are text, visual and {added} that the chat format adds, such as BOS and EOS" in lines
    assert "lost of web: samples held_out" in lines
    assert "note: quiz: 80 samples without a licence" in lines


def test_the_share_of_the_loss_stands_below_where_the_recipe_weighs_it(stats):
    assert "share of the loss" not in shown(make_stats_table(stats))
    sources = [{**source, "loss_share": share} for source, share in zip(stats["sources"], (0.25, 0.75), strict=True)]
    said = " ".join(shown(make_stats_table({**stats, "sources": sources})).split())
    assert "share of the loss, as the recipe weighs it: web 25.00%, quiz 75.00%" in said


def test_no_number_of_the_table_is_cut_off_in_a_terminal_of_80_columns(stats):
    def lines(width):
        return shown(make_stats_table(stats), width).splitlines()[3:6]

    assert [line.split() for line in lines(80)] == [line.split() for line in lines(160)]


@pytest.mark.parametrize(
    ("name", "width", "folded"),
    [("receipts", 80, 1), ("localized_narratives", 80, 1), ("localized_narratives_of_all", 80, 2), ("x" * 40, 120, 1)],
)
def test_a_long_name_stays_in_one_piece_where_the_headings_can_make_room(stats, name, width, folded):
    named = json.loads(json.dumps(stats))
    named["sources"][0]["name"] = name
    shown_lines = shown(make_stats_table(named, width), width).splitlines()
    first = (line.split(" ")[0] for line in shown_lines)
    pieces = [piece for piece in first if len(piece) > 3 and piece in name]
    assert "".join(pieces) == name
    assert len(pieces) == folded
    assert "…" not in "".join(shown_lines)


def test_statistics_are_json_of_one_form(stats):
    assert json.loads(to_json(stats)) == stats
    assert to_json(stats) == to_json(json.loads(to_json(stats)))


def test_declared_shares_of_repeats_are_what_they_come_to(tmp_path):
    store = Store(tmp_path)
    store.add("web", lone([10] * 30))
    store.add("quiz", lone([10] * 10))
    _, found = store.lock(MixtureSettings(64, repeat={"web": 1, "quiz": 3}))
    assert [source["declared"] for source in found["sources"]] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (812, "812"), (12_345, "12.3k"), (4_560_000, "4.56M"), (-1.2e9, "-1.2B")]
)
def test_numbers_are_short(number, text):
    assert shorten_number(number) == text
