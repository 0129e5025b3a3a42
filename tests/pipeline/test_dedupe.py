"""What dedupe drops and keeps, from samples and facts to verdicts."""

from __future__ import annotations

import io
import random
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.pipeline.test_dedupe_picture import brightened, drawing, halved, recompressed
from tests.pipeline.test_dedupe_text import prose
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    WHOLE_SAMPLE,
    ImageStats,
    Node,
    Sample,
    SampleId,
    Verdict,
    read_rows,
    read_verdicts,
    write_image_stats,
    write_samples,
    write_verdicts,
)
from vlmill.pipeline.dedupe import Dedupe
from vlmill.pipeline.dedupe.domain import hash_host
from vlmill.pipeline.steps.image_stats import compute_image_stats


@dataclass(frozen=True)
class Item:
    """A sample whose image nodes name pictures; `filtered` are earlier verdicts on it: {node: reason}."""

    source: str
    row: int
    nodes: tuple[Node, ...]
    filtered: tuple[int, ...] = ()
    url: str = ""

    @property
    def name(self) -> str:
        return str(self.id)

    @property
    def id(self) -> SampleId:
        return SampleId(self.source, "input file.parquet", self.row)


PICTURES = {
    f"{kind}{seed}": alter(drawing(seed))
    for seed in range(14)
    for kind, alter in {"p": lambda image: image, "bright": brightened, "half": halved, "jpeg": recompressed}.items()
}


@cache
def facts_of(name: str) -> ImageStats:
    """Of the picture of that name, or of the one that stands for all that have none."""
    if name == "dead":
        return ImageStats(0, Reason.UNDECODABLE)
    buffer = io.BytesIO()
    PICTURES.get(name, PICTURES["p13"]).save(buffer, "PNG")
    return compute_image_stats(0, buffer.getvalue())


def words(text, role="none", turn=0):
    return Node("text", role, turn, text=text)


def shows(name, role="none", turn=0, required=False):
    return Node("image", role, turn, required=required, url=name)


def document(row, *partitions, source="web", filtered=()):
    """Strings are texts, pictures are named `@name`."""
    nodes = tuple(shows(partition[1:]) if partition.startswith("@") else words(partition) for partition in partitions)
    return Item(source, row, nodes, filtered)


def web(row, *partitions, host="a.example", filtered=()):
    return replace(document(row, *partitions, filtered=filtered), url=f"https://{host}/{row}")


def quiz(row, name, *turns, source="quiz", filtered=()):
    nodes = [shows(name, "user", 0, required=True)]
    for number, (question, answer) in enumerate(turns):
        nodes += [words(question, "user", number), words(answer, "assistant", number)]
    return Item(source, row, tuple(nodes), filtered)


def page(row, name, text, source="scans", filtered=()):
    return Item(source, row, (shows(name, required=True), words(text)), filtered)


def pair(row, name, caption, source="captions", filtered=()):
    return page(row, name, caption, source, filtered)


def write_part(folder: Path, items: list[Item]) -> None:
    folder.mkdir(parents=True)
    image_stats, samples, verdicts = [], [], []
    for row, item in enumerate(items):
        nodes = []
        for node in item.nodes:
            if node.kind == "image":
                image_stats.append(replace(facts_of(node.url.rpartition("/")[2]), image=len(image_stats)))
            nodes.append(node if node.kind == "text" else replace(node, image=len(image_stats) - 1))
        samples.append(Sample(item.id, tuple(nodes), url=item.url))
        verdicts += [Verdict(row, node, "taste", Reason.LANGUAGE) for node in item.filtered]
    write_samples(folder / "samples.parquet", samples)
    write_image_stats(folder / "image_stats.parquet", image_stats)
    write_verdicts(folder / "taste.verdicts.parquet", verdicts)


def run(
    items,
    *,
    cuts=1,
    shuffled=None,
    folder=None,
    priority=None,
    filters=("taste",),
    captioned=("captions", "more"),
    also=None,
    **knobs,
):
    """All verdicts as {(sample, node): verdict}, from partitions of `cuts` samples, files in shuffled order.

    `also` is given the step, its inputs, and the folder with what it left.
    """
    with tempfile.TemporaryDirectory() as temporary:
        root, dedupe = Path(folder or temporary), Dedupe(**{"buckets": 2, **knobs})
        partitions = {}
        for source in sorted({item.source for item in items}):
            rows = sorted((item for item in items if item.source == source), key=lambda item: item.row)
            for number, start in enumerate(range(0, len(rows), cuts)):
                partitions[f"{source}/00000-{number:04d}"] = rows[start : start + cuts]
        names = list(partitions)
        if shuffled is not None:
            random.Random(shuffled).shuffle(names)
        inputs = {}
        for partition in names:
            write_part(root / partition, partitions[partition])
            inputs |= {f"{partition}/{path.name}": path for path in (root / partition).iterdir()}
            given = {name: root / partition / name for name in ("samples.parquet", "image_stats.parquet")}
            (root / partition / "signature").mkdir()
            dedupe.signature().run(given, root / partition / "signature")
            inputs |= {f"{partition}/{path.name}": path for path in (root / partition / "signature").iterdir()}
        for name, steps in (("candidates", dedupe.candidates()), ("pairs", dedupe.pair_steps())):
            made = {}
            for number, step in enumerate(steps):
                folder = root / f"{name}-{number:05d}"
                folder.mkdir()
                step.run(inputs, folder)
                made |= {f"{number:05d}/{path.name}": path for path in folder.iterdir()}
            inputs |= made
        (root / "resolved").mkdir()
        resolve = dedupe.resolve(partitions=tuple(names), priority=priority or {}, filters=filters, captioned=captioned)
        counts = resolve.run(inputs, root / "resolved")
        assert all(count.balanced() for count in counts.values())
        if also:
            also(resolve, inputs, root / "resolved", counts)
        found = {}
        for partition, rows in partitions.items():
            path = root / "resolved" / f"{partition.replace('/', '.')}.dedupe.verdicts.parquet"
            found |= {(rows[verdict.sample].name, verdict.node): verdict for verdict in read_verdicts(path)}
        return found


def reasons(found):
    return {place: verdict.reason for place, verdict in found.items()}


def edited(text, *places):
    partitions = text.split()
    for place in places:
        partitions[place] = "edited"
    return " ".join(partitions)


STORY = prose(200, 1)


# -- texts ---------------------------------------------------------------------------------------------------------


def test_of_equal_and_similar_documents_the_smallest_id_is_kept():
    found = run([document(3, STORY), document(10, STORY), document(7, edited(STORY, 50)), document(8, prose(200, 2))])
    assert reasons(found) == {
        ("web/input file.parquet#10", WHOLE_SAMPLE): Reason.EXACT_TEXT,
        ("web/input file.parquet#7", WHOLE_SAMPLE): Reason.NEAR_TEXT,
    }
    assert {verdict.other for verdict in found.values()} == {"web/input file.parquet#3"}
    assert found["web/input file.parquet#10", WHOLE_SAMPLE].score == 1
    assert 0.9 < found["web/input file.parquet#7", WHOLE_SAMPLE].score < 1


def test_the_source_with_the_lower_priority_number_keeps_its_copy():
    items = [document(0, STORY, source="a"), document(0, STORY, source="b")]
    assert set(run(items)) == {("b/input file.parquet#0", WHOLE_SAMPLE)}
    assert set(run(items, priority={"a": 5, "b": 1})) == {("a/input file.parquet#0", WHOLE_SAMPLE)}


CHAIN = [document(row, edited(STORY, *range(20, 20 + 18 * row, 6))) for row in range(3)]


def test_of_a_chain_one_is_kept_although_its_ends_differ_more_than_the_threshold():
    assert set(run([CHAIN[0], CHAIN[2]], text=0.8)) == set()
    assert {name for name, _ in run(CHAIN, text=0.8)} == {CHAIN[1].name, CHAIN[2].name}


def test_a_chain_whose_middle_a_filter_dropped_keeps_both_ends():
    found = run([CHAIN[0], replace(CHAIN[1], filtered=(WHOLE_SAMPLE,)), CHAIN[2]], text=0.8)
    assert found == {}


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.permutations(range(8)), st.sets(st.integers(0, 7)), st.integers(1, 4))
def test_of_each_unbroken_piece_of_a_chain_the_first_is_kept(places, dropped, cuts):
    """Neighbours in the chain are similar, any others are not; `places` are their rows."""
    chain = [edited(STORY, *range(20, 20 + 18 * link, 6)) for link in range(8)]
    filtered = [(WHOLE_SAMPLE,) if link in dropped else () for link in range(8)]
    found = run([document(places[link], text, filtered=filtered[link]) for link, text in enumerate(chain)], cuts=cuts)
    pieces = "".join("." if link in dropped else str(link) for link in range(8)).split(".")
    kept = {min(places[int(link)] for link in piece) for piece in pieces if piece}
    left = {places[link] for link in range(8) if link not in dropped}
    assert {SampleId.parse(name).row for name, _ in found} == left - kept


def test_what_a_filter_dropped_is_never_the_keeper():
    found = run([document(0, STORY, filtered=(WHOLE_SAMPLE,)), document(1, STORY), document(2, STORY)])
    assert {place: verdict.other for place, verdict in found.items()} == {
        ("web/input file.parquet#2", WHOLE_SAMPLE): "web/input file.parquet#1"
    }


def test_short_texts_are_only_exact_duplicates_and_only_with_the_same_images():
    found = run([
        document(0, "Hello there, world"),
        document(1, "Hello  there, world"),
        document(2, "Hello there world"),
        document(3, "Figure one", "@p1"),
        document(4, "Figure one", "@p2"),
        document(5, "Figure one", "@p1"),
    ])  # fmt: skip
    assert reasons(found) == {
        ("web/input file.parquet#1", WHOLE_SAMPLE): Reason.EXACT_TEXT,
        ("web/input file.parquet#5", WHOLE_SAMPLE): Reason.EXACT_IMAGE,
    }


def test_a_new_threshold_needs_no_new_pairs():
    items = [document(0, STORY), document(1, edited(STORY, 50, 100))]
    assert set(run(items, text=0.99)) == set()
    assert set(run(items, text=0.8)) == {("web/input file.parquet#1", WHOLE_SAMPLE)}


# -- images of web documents ---------------------------------------------------------------------------------------


def test_the_same_image_again_in_one_document_goes_the_second_time():
    found = run([document(0, prose(50, 1), "@p1", "@bright1", "@p1"), document(1, prose(50, 2), "@p1")])
    assert reasons(found) == {("web/input file.parquet#0", 3): Reason.EXACT_IMAGE}
    assert found["web/input file.parquet#0", 3].other == "web/input file.parquet#0"


def test_similar_images_in_one_document_go_if_the_recipe_says_so():
    found = run([document(0, prose(50, 1), "@p1", "@bright1", "@p2")], near_images=True)
    assert reasons(found) == {("web/input file.parquet#0", 2): Reason.NEAR_IMAGE}


def test_an_image_in_more_documents_than_allowed_leaves_them_all():
    items = [document(row, prose(50, row), "@p1", "@p2") for row in range(3)] + [document(3, prose(50, 3), "@p2")]
    assert run(items, boilerplate=4) == {}
    found = run(items, boilerplate=3)
    assert reasons(found) == {
        (items[row].name, node): Reason.BOILERPLATE_IMAGE for row, node in [(0, 2), (1, 2), (2, 2), (3, 1)]
    }
    assert {verdict.score for verdict in found.values()} == {4}


def test_copies_of_a_document_do_not_make_its_images_boilerplate():
    assert {node for _, node in run([document(row, STORY, "@p1") for row in range(5)], boilerplate=2)} == {WHOLE_SAMPLE}


def test_images_of_other_documents_stay_unless_the_recipe_says_otherwise():
    items = [document(0, prose(50, 0), "@p1"), document(1, prose(50, 1), "@p1"), document(2, prose(50, 2), "@half1")]
    assert run(items, near_images=True) == {}
    found = run(items, near_images=True, across_documents=True)
    assert reasons(found) == {(items[1].name, 1): Reason.EXACT_IMAGE, (items[2].name, 1): Reason.NEAR_IMAGE}
    assert {verdict.other for verdict in found.values()} == {items[0].name}


# -- questions and pages -------------------------------------------------------------------------------------------


def test_a_question_stays_unless_image_question_and_answer_come_again():
    items = [
        quiz(0, "p1", ("What is it?", "A drawing."), ("How many?", "Twelve.")),
        quiz(1, "p1", ("What is it?", "A picture.")),
        quiz(2, "p2", ("What is it?", "A drawing.")),
        quiz(3, "p1", ("How many?", "Twelve."), ("Why?", "Because.")),
        quiz(4, "bright1", ("What is it?", "A drawing.")),
    ]
    same_file = {("quiz/input file.parquet#3", node): Reason.EXACT_IMAGE for node in (1, 2)}
    assert reasons(run(items)) == same_file, "templated sets ask the same of scenes that are nearly the same"
    found = run(items, near_images=True)
    assert reasons(found) == {**same_file, ("quiz/input file.parquet#4", WHOLE_SAMPLE): Reason.NEAR_IMAGE}
    assert {verdict.other for verdict in found.values()} == {"quiz/input file.parquet#0"}


def test_a_turn_that_comes_twice_in_one_sample_goes_the_second_time():
    found = run([quiz(0, "p1", ("What?", "This."), ("What?", "This."))])
    assert set(found) == {("quiz/input file.parquet#0", 3), ("quiz/input file.parquet#0", 4)}


def test_a_turn_that_a_filter_dropped_keeps_no_other_away():
    assert (
        run([quiz(0, "p1", ("What?", "This."), ("Who?", "He."), filtered=(1,)), quiz(1, "p1", ("What?", "This."))])
        == {}
    )


def test_pages_fall_with_image_and_text_together():
    found = run([
        page(0, "p1", STORY),
        page(1, "p1", prose(200, 5)),
        page(2, "p2", STORY),
        page(3, "jpeg1", STORY),
        page(4, "p1", edited(STORY, 60)),
        page(5, "p1", STORY),
    ])  # fmt: skip
    assert reasons(found) == {
        ("scans/input file.parquet#3", WHOLE_SAMPLE): Reason.NEAR_IMAGE,
        ("scans/input file.parquet#4", WHOLE_SAMPLE): Reason.NEAR_TEXT,
        ("scans/input file.parquet#5", WHOLE_SAMPLE): Reason.EXACT_IMAGE,
    }


def test_samples_that_lost_a_required_image_are_no_keepers():
    assert run([quiz(0, "dead", ("What?", "This.")), quiz(1, "dead", ("What?", "This."))]) == {}


# -- the whole -----------------------------------------------------------------------------------------------------

texts = st.sampled_from([STORY, edited(STORY, 40), edited(STORY, 40, 90), prose(100, 9), "short", "Short", ""])
pictures = st.sampled_from(["p1", "bright1", "jpeg1", "p2", "half2", "dead"])
filtered = st.sampled_from([(), (), (), (0,), (WHOLE_SAMPLE,)])
turns = st.lists(
    st.tuples(st.sampled_from(["What?", "Who?"]), st.sampled_from(["This.", "That."])), min_size=1, max_size=3
)
drafts = st.lists(
    st.one_of(
        st.builds(
            lambda text, names, gone, site: (
                lambda row: web(row, text or "x", "About us", *(f"@{name}" for name in names), host=site, filtered=gone)
            ),
            texts,
            st.lists(pictures, max_size=3),
            filtered,
            st.sampled_from(["a.example", "b.example"]),
        ),
        st.builds(
            lambda name, said, gone: lambda row: quiz(row, name, *said, source="web", filtered=gone),
            pictures,
            turns,
            filtered,
        ),
        st.builds(
            lambda name, text, gone: lambda row: page(row, name, text, source="scans", filtered=gone),
            pictures,
            texts,
            filtered,
        ),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(drafts, st.integers(1, 5), st.integers(0, 99), st.integers(1, 9))
def test_verdicts_do_not_depend_on_partitions_buckets_or_the_order_of_files(made, cuts, seed, buckets):
    items = [draft(row) for row, draft in enumerate(made)]
    knobs = {"boilerplate": 2, "across_documents": bool(seed % 2), "near_images": seed % 3 == 0}
    knobs |= {"paragraphs": 2 if seed % 5 else None, "same_addresses": seed % 4 == 0}
    knobs |= {"host_images": 0.3 if seed % 2 else None}
    expected = run(items, cuts=1000, buckets=1, **knobs)
    found = run(items, cuts=cuts, shuffled=seed, buckets=buckets, **knobs)
    place = {place: (verdict.reason, verdict.score, verdict.other) for place, verdict in expected.items()}
    assert {each: (verdict.reason, verdict.score, verdict.other) for each, verdict in found.items()} == place


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(drafts)
def test_keepers_are_kept(made):
    knobs = {"boilerplate": 2, "across_documents": True, "paragraphs": 2, "same_addresses": True, "host_images": 0.3}
    found = run([draft(row) for row, draft in enumerate(made)], **knobs)
    dropped = {name for name, node in found if node == WHOLE_SAMPLE}
    assert not dropped & {verdict.other for verdict in found.values()}


def test_the_same_input_gives_the_same_bytes(tmp_path):
    items = [document(0, STORY, "@p1"), document(1, edited(STORY, 50), "@bright1"), quiz(2, "p1", ("What?", "This."))]
    for name in ("one", "two"):
        run(items, folder=tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert [(tmp_path / "one" / file).read_bytes() for file in files] == [
        (tmp_path / "two" / file).read_bytes() for file in files
    ]


def test_every_partition_gets_a_file_even_without_a_sample(tmp_path):
    write_part(tmp_path / "web/00000-0000", [])
    (tmp_path / "signature").mkdir()
    given = {name: tmp_path / "web/00000-0000" / name for name in ("samples.parquet", "image_stats.parquet")}
    Dedupe().signature().run(given, tmp_path / "signature")
    inputs = {f"web/00000-0000/{path.name}": path for path in (tmp_path / "signature").iterdir()}
    for step in (Dedupe(buckets=1).candidates()[0], Dedupe(buckets=1).pair_steps()[0]):
        (tmp_path / step.name).mkdir()
        step.run(inputs, tmp_path / step.name)
        inputs |= {f"00000/{path.name}": path for path in (tmp_path / step.name).iterdir()}
    Dedupe().resolve(("web/00000-0000",), {}, (), ()).run(inputs, tmp_path)
    assert list(read_rows(tmp_path / "web.00000-0000.dedupe.verdicts.parquet")) == []


def test_thresholds_below_what_pairs_measure_are_refused():
    with pytest.raises(ValidationError, match=r"greater than or equal to 0\.5"):
        Dedupe(text=0.3)
    with pytest.raises(ValidationError, match="near_image"):
        Dedupe(near_image=True)


# -- OBELICS' own rules --------------------------------------------------------------------------------------------


def test_a_paragraph_in_enough_documents_of_a_host_leaves_them_all():
    items = [web(row, prose(50, row), "Subscribe to  our letter!") for row in range(3)]
    items += [
        web(3, prose(50, 3), "Subscribe to our letter!", host="b.example"),
        document(4, "Subscribe to our letter!"),
    ]
    assert run(items) == {}
    assert run(items, paragraphs=4) == {}
    found = run(items, paragraphs=3)
    assert reasons(found) == {(items[row].name, 1): Reason.REPEATED_PARAGRAPH for row in range(3)}
    assert {verdict.score for verdict in found.values()} == {3}


def test_a_paragraph_goes_if_all_of_its_lines_are_repeated_whatever_their_order_case_and_numbers():
    menus = ["Home | About us | 3 offers", "About us\nHome\n12 offers", "HOME » 7 offers » about us"]
    items = [
        web(row, prose(50, row), menu, f"Home\nOnly page {'abc'[row]} has this line") for row, menu in enumerate(menus)
    ]
    found = run(items, paragraphs=3)
    assert reasons(found) == {(item.name, 1): Reason.REPEATED_PARAGRAPH for item in items}
    assert {verdict.score for verdict in found.values()} == {3}


def test_rows_of_numbers_and_names_with_digits_are_not_the_same_line():
    items = [web(row, prose(50, row), f"{row} {10 * row} {row}5", f"Model X{row} is new", "* * *") for row in range(3)]
    assert reasons(run(items, paragraphs=3)) == {(item.name, 3): Reason.REPEATED_PARAGRAPH for item in items}


def test_a_line_counts_where_it_stands_beside_others_and_the_rarest_decides():
    items = [web(row, prose(50, row), f"Home\n{prose(20, 90 + row)}") for row in range(2)]
    items += [web(row, prose(50, row), "Home", "Home\nShop") for row in (2, 3)]
    found = run(items, paragraphs=2)
    assert {place: verdict.score for place, verdict in found.items()} == {
        (items[row].name, node): score for row in (2, 3) for node, score in ((1, 4), (2, 2))
    }


def test_an_image_that_much_of_a_host_shows_leaves_it_if_the_recipe_says_so():
    items = [web(row, prose(50, row), "@p1", f"@p{row + 2}") for row in range(3)]
    items += [web(row, prose(50, row), f"@p{row + 2}") for row in (3, 4, 5)]
    items += [web(row, prose(50, row), "@p1", host="b.example") for row in (6, 7)]
    items.append(document(8, prose(50, 8), "@p1"))
    assert run(items) == {}
    assert run(items, host_images=0.51) == {}
    found = run(items, host_images=0.5)
    assert reasons(found) == {(items[row].name, 1): Reason.HOST_IMAGE for row in range(3)}
    assert {verdict.score for verdict in found.values()} == {3}
    assert set(reasons(run(items, host_images=0.5, boilerplate=5)).values()) == {Reason.BOILERPLATE_IMAGE}


def test_what_is_said_twice_in_one_document_or_in_a_dropped_one_is_not_repeated():
    items = [
        web(0, prose(50, 0), "Read more", "Read more", "Read more"),
        web(1, prose(50, 1), "Read more"),
        web(2, prose(50, 2), "Read more", filtered=(WHOLE_SAMPLE,)),
        web(3, prose(50, 3), "Read more", filtered=(1,)),
        *(web(row, prose(50, 0), *["Read more"] * 3) for row in (4, 5)),
    ]
    assert {node for _, node in run(items, paragraphs=3)} == {WHOLE_SAMPLE}


def test_hosts_are_one_whatever_their_case_and_port_and_only_documents_have_them():
    assert hash_host("https://A.example:8080/x") == hash_host("http://a.example/y")
    assert hash_host("https://a.example/") != hash_host("https://b.a.example/")
    assert hash_host("") is hash_host("no address") is hash_host("http://[broken") is None
    items = [replace(page(row, f"p{row}", "Page of a book"), url="https://a.example/") for row in range(4)]
    assert run(items, paragraphs=2) == {}


def test_documents_that_show_the_same_addresses_are_one_if_the_recipe_says_so():
    def at(row, *names):
        shown = tuple(replace(shows("p1"), url=f"http://img.example/{name}") for name in names)
        return Item("web", row, (words(prose(50, row)), *shown))

    items = [at(4, "a", "b"), at(1, "a", "b", "c"), at(2, "b", "a", "b"), at(3, "a"), at(5)]
    assert {name for name, node in run(items) if node == WHOLE_SAMPLE} == set()
    found = {place: verdict for place, verdict in run(items, same_addresses=True).items() if place[1] == WHOLE_SAMPLE}
    assert reasons(found) == {(items[0].name, WHOLE_SAMPLE): Reason.SAME_ADDRESSES}
    assert {verdict.other for verdict in found.values()} == {items[2].name}


def test_documents_are_not_the_same_for_the_logo_of_their_site():
    items = [web(row, prose(50, row), "@p1") for row in range(4)]
    found = run(items, same_addresses=True, boilerplate=3)
    assert set(reasons(found).values()) == {Reason.BOILERPLATE_IMAGE}
    assert set(reasons(run(items, same_addresses=True)).values()) == {Reason.SAME_ADDRESSES}
