"""What is taken down is gone from the disk, stays away whatever is built later, and nothing else is touched."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import tarfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.killing import killed_at
from tests.helpers.small import (
    RECIPE,
    picture,
    product,
    prose,
    vlmill,
    write_recipe,
)
from vlmill.mixtures.page import render_mixture_page
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    IMAGE_STATS,
    IMAGES,
    REFUSED,
    ImageStats,
    Node,
    Sample,
    SampleId,
    read_rows,
    read_samples,
    write_image_stats,
    write_rows,
    write_samples,
)
from vlmill.pipeline.engine.chain import read_manifest
from vlmill.pipeline.recipe.lock import CARRIED_OUT
from vlmill.pipeline.reports.what_if import answer_what_if
from vlmill.pipeline.takedown import Matches, Redact, TakedownList, make_redaction
from vlmill.pipeline.takedown.rules import LIST, parse_rules, spell_address
from vlmill.pipeline.takedown.steps import hash_text, match_partition
from vlmill.pipeline.verdicts.apply import apply_verdicts
from vlmill.train.digests import read_result, write_result

WEB, QUIZ, PAPER = "web/web.parquet#0", "quiz/quiz.parquet#6", "papers/papers.tar#0.1"


SOURCES = {name: RECIPE["sources"][name] for name in ("web", "quiz", "papers")}
"""Images that are fetched, images that the input file carries, and pages that are drawn: a build of these has all that
a takedown meets."""
STAGE = RECIPE["stages"][0]
WEB_ALONE = {"sources": {"web": SOURCES["web"]}, "filters": [{"language": None}], "stages": []}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    shares = {"shares": {"web": 0.5, "quiz": 0.4, "papers": 0.1}}
    stage = {**STAGE, "mixture": {**STAGE["mixture"], **shares}}
    return write_recipe(tmp_path_factory.mktemp("input files"), sources=SOURCES, stages=[stage], dedupe={"buckets": 1})


@pytest.fixture(scope="module")
def built(recipe, tmp_path_factory):
    root = tmp_path_factory.mktemp("built") / "run"
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    return root


@pytest.fixture
def run(built, tmp_path):
    """A copy of the build, with the times of its files."""
    return Path(shutil.copytree(built, tmp_path / "run"))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A recipe that is built in a moment."""
    return write_recipe(tmp_path_factory.mktemp("small"), **WEB_ALONE, partition={"rows": 100}, dedupe=None)


@pytest.fixture(scope="module")
def small_built(small, tmp_path_factory):
    root = tmp_path_factory.mktemp("small-built") / "run"
    assert build(small, root) == 0
    return root


def takedown(root, *arguments):
    return vlmill("takedown", root, *arguments, "--workers", 0)


def build(recipe, root, *arguments):
    return vlmill("build", recipe, "--out", root, "--workers", 0, *arguments)


def contents(root):
    """Everything that lies in a run, whether a manifest names it or not: sha256 of images, texts, ids in shards."""
    images, texts, ids = set(), set(), set()
    for path in root.rglob("*.parquet"):
        names = pq.read_schema(path).names
        if "bytes" in names:
            images |= {hashlib.sha256(row["bytes"]).hexdigest() for row in read_rows(path, ["bytes"]) if row["bytes"]}
        if "thumbnail" in names:
            images |= {row["sha256"] for row in read_rows(path, ["sha256", "thumbnail"]) if row["thumbnail"]}
        if "signals" in names:
            texts |= {node.text for sample in read_samples(path) for node in sample.nodes if node.text}
        if path.name.endswith(".lineage.parquet"):
            images |= {node["sha256"] for row in read_rows(path) for node in row["nodes"] if node["sha256"]}
    for path in root.rglob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    record = json.load(tar.extractfile(member))
                    ids.add(record["id"])
                    texts |= {node["text"] for node in record["nodes"] if "text" in node}
    return images, texts, ids


def sha(number, size=(160, 120)):
    return hashlib.sha256(picture(number, size)).hexdigest()


def said(capsys):
    """What the command printed, without the line breaks of a narrow terminal."""
    return " ".join(capsys.readouterr().out.split())


# -- what goes


def test_a_sample_its_images_and_its_copies_go_from_the_disk(run, capsys):
    before = contents(run)
    assert sha(0) in before[0]
    assert prose(0) in before[1]
    assert WEB in before[2]
    assert takedown(run, "--id", WEB) == 0
    images, texts, ids = contents(run)
    assert sha(0) not in images
    assert not {prose(0), prose(100)} & texts
    assert not {WEB, "web/web.parquet#4"} & ids, (
        "the second has the same text and picture, and fell as a duplicate before"
    )
    assert before[0] - images == {sha(0)}
    assert before[2] - ids == {WEB}
    assert vlmill("verify", run) == 0
    capsys.readouterr()
    assert vlmill("trace", run, WEB) == 0
    assert f"taken down by id {WEB}" in said(capsys)


def test_a_page_and_a_question_go_with_the_picture_they_are_about(run):
    assert takedown(run, "--id", PAPER, "--sha256", sha(56, (200, 66))) == 0
    _, texts, ids = contents(run)
    assert not {PAPER, QUIZ} & ids
    assert "Thing 6" in texts, "the text of a sample stays in the raw table where only its image was asked for"
    assert not any("another line" in text for text in texts)
    assert vlmill("verify", run) == 0
    assert sum(funnel(run, "quiz")["samples"]["dropped"].values()) == 1
    assert funnel(run, "quiz")["samples"]["dropped"] == {"taken_down": 1}


def funnel(root, source):
    from vlmill.pipeline.reports.funnel import read_funnel as books

    return books(root)[source]


def test_an_address_takes_the_image_and_leaves_the_document(run, capsys):
    assert takedown(run, "--url", "HTTP://img.small.test:80/1.png#top") == 0
    assert "which 1 other samples show" in said(capsys)
    images, texts, ids = contents(run)
    assert sha(1) not in images
    assert prose(1) in texts
    assert "web/web.parquet#1" in ids
    assert funnel(run, "web")["images"]["dropped"]["taken_down"] == 1
    assert vlmill("trace", run, "web/web.parquet#1") == 0
    assert "image taken down by url http://img.small.test/1.png" in said(capsys)


def test_a_domain_includes_its_sub_domains(run):
    assert takedown(run, "--domain", "Small.Test") == 0
    assert not {sha(number) for number in range(6)} & contents(run)[0]
    assert vlmill("verify", run) == 0


def test_what_lies_at_another_address_too_is_reported_and_stays(tmp_path, capsys):
    recipe = write_recipe(
        tmp_path / "input files", sources={"web": RECIPE["sources"]["web"]}, dedupe={"buckets": 1}, stages=[]
    )
    shutil.copyfile(tmp_path / "input files/served/1.png", tmp_path / "input files/served/2.png")
    assert build(recipe, tmp_path / "run") == 0
    assert takedown(tmp_path / "run", "--url", "http://img.small.test/1.png") == 0
    assert f"--sha256 {sha(1)}" in said(capsys)
    assert sha(1) in contents(tmp_path / "run")[0]
    assert takedown(tmp_path / "run", "--sha256", sha(1).upper()) == 0
    assert sha(1) not in contents(tmp_path / "run")[0]


def test_former_near_duplicates_are_reported_and_come_back(tmp_path, capsys):
    from tests.helpers.upstream import obelics

    recipe = write_recipe(
        tmp_path / "input files",
        sources={"web": {"kind": "obelics", "files": "web.parquet"}},
        dedupe={"buckets": 1},
        stages=[],
    )
    long = " ".join(prose(number) for number in range(8))
    obelics(
        tmp_path / "input files/web.parquet", [[long], [long + " And a last word."], ["Something else altogether."]]
    )
    root = tmp_path / "run"
    assert build(recipe, root) == 0
    assert "web/web.parquet#1" not in contents(root)[2]
    assert takedown(root, "--id", "web/web.parquet#0") == 0
    assert "may come back: web/web.parquet#1 (near_text" in said(capsys)
    assert contents(root)[2] == {"web/web.parquet#1", "web/web.parquet#2"}


# -- what does not


def snapshot(root):
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in root.rglob("*")
        if path.is_file() and path.parent != root / "logs"  # times, which differ from run to run
    }


def test_partitions_that_do_not_hold_it_are_not_touched(run):
    before = snapshot(run)
    assert takedown(run, "--sha256", sha(56, (200, 66))) == 0
    after = snapshot(run)
    parted = [name for name in before if name.startswith(("steps/", "shards/")) and not name.endswith("manifest.json")]
    elsewhere = [
        name for name in parted if not name.startswith(("steps/dedupe", "steps/mixtures")) and "/quiz/" not in name
    ]
    elsewhere += [name for name in parted if "/quiz/" in name and "/00000-0000." in name]
    assert len(elsewhere) > 40
    assert {name: after.get(name) for name in elsewhere} == {name: before[name] for name in elsewhere}
    new = {
        name for name in set(after) - set(before) if not name.startswith(("steps/dedupe", "steps/mixtures", "mixtures"))
    }
    assert {name for name in new if "/00000-0001." not in name and "/match/" not in name} == {
        LIST,
        CARRIED_OUT,
        "steps/quiz/takedown/made_by.json",
        "steps/quiz/takedown/manifest.json",
    }


def test_a_dry_run_shows_what_would_go_and_changes_nothing(run, capsys):
    before = snapshot(run)
    assert takedown(run, "--id", WEB, "--domain", "elsewhere.test", "--dry-run") == 0
    text = said(capsys)
    assert f"{WEB} (id {WEB})" in text
    assert "nothing here falls under domain elsewhere.test" in text
    assert snapshot(run) == before
    assert takedown(run, "--id", WEB, "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["samples"][WEB] == f"id {WEB}"


def test_the_stages_are_named_and_a_trained_model_is_said_to_be_as_it_was(run, capsys):
    (run / "train/align").mkdir(parents=True)
    lock = (run / "mixtures/align/mixture.lock.json").read_bytes()
    assert takedown(run, "--sha256", sha(56, (200, 66))) == 0
    text = said(capsys)
    assert (
        f"stage align: the plan changed. It was trained on the earlier one, and that model is not changed: delete "
        f"{run}/train/align, then vlmill train {run} --stage align" in text
    )
    assert (run / "mixtures/align/mixture.lock.json").read_bytes() != lock


def test_what_a_trained_stage_answered_goes_with_its_sample_and_the_scores_stay(run):
    stage, odd = run / "train/align", "a text of two\u2028lines\x85here"
    lines = [{"id": name, "answers": [{"question": odd, "reference": odd}]} for name in (WEB, "web/web.parquet#1")]
    stage.mkdir(parents=True)
    (stage / "held_out.jsonl").write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines))
    (stage / "scoring-0123.jsonl").write_text("what an interrupted scoring left")
    write_result(stage, {"scores": {"web": 1.5}})
    assert takedown(run, "--id", WEB) == 0
    assert [json.loads(line) for line in (stage / "held_out.jsonl").read_bytes().splitlines()] == lines[1:]
    assert read_result(stage) == {"scores": {"web": 1.5}}
    assert not list(stage.glob("scoring-*"))
    assert vlmill("verify", run) == 0
    before = (stage / "held_out.jsonl").stat().st_mtime_ns
    assert takedown(run) == 0
    assert (stage / "held_out.jsonl").stat().st_mtime_ns == before
    (stage / "held_out.jsonl").write_text(json.dumps(lines[0]) + "\n")  # as earlier versions left it
    assert takedown(run) == 0
    assert not (stage / "held_out.jsonl").read_text()


def test_of_a_stage_that_was_not_trained_no_takedown_says_to_train_it_again(run, capsys):
    assert takedown(run, "--sha256", sha(56, (200, 66))) == 0
    text = said(capsys)
    assert "stage align: the plan changed" in text
    assert "vlmill train" not in text


def test_a_second_takedown_leaves_the_first_partition_alone(run):
    assert takedown(run, "--sha256", sha(56, (200, 66))) == 0
    before = {name: state for name, state in snapshot(run).items() if name.startswith("steps/quiz/takedown/00000")}
    assert before
    assert takedown(run, "--id", WEB) == 0
    assert {name: snapshot(run)[name] for name in before} == before
    assert takedown(run, "--id", "quiz/quiz.parquet#7") == 0
    assert sha(57, (200, 67)) not in contents(run)[0]
    assert vlmill("verify", run) == 0
    assert takedown(run) == 0, "there is nothing left to do, and that is no error"


def test_what_asks_a_run_later_sees_it_without_what_was_taken_down(recipe, run):
    assert takedown(run, "--id", WEB, "--id", PAPER, "--sha256", sha(56, (200, 66))) == 0
    books = {source: funnel(run, source) for source in SOURCES}
    _, same = answer_what_if(str(run), None, {}, [])
    assert not same.changes
    _, other = answer_what_if(str(run), None, {"language.drop": "[en]", "dedupe": "null"}, [])
    for source, levels in books.items():
        for level in ("samples", "nodes", "images"):
            assert other.sources[source][level].came == levels[level]["in"]
            assert other.sources[source][level].now == same.sources[source][level].then == levels[level]["kept"]
    nothing = ("--set", "filters.language.drop=[en]", "--set", "expect.kept=0")
    assert build(recipe, run, "--accept-changes", *nothing, "--set", "dedupe=null", "--until", "shard") == 0
    for source in SOURCES:
        for level in ("samples", "nodes", "images"):
            assert other.sources[source][level].then == funnel(run, source)[level]["kept"]


def test_the_page_of_statistics_knows_that_it_is_gone(run):
    assert takedown(run, "--id", WEB) == 0
    html = render_mixture_page(run, None, {"align": "answers"})
    assert "lost: taken_down" in html
    assert prose(0)[:60] not in html
    assert prose(1)[:60] in html


# -- for good


AGAIN = [
    ("--rebuild", "--retry-failed"),
    ("--accept-changes", "--set", "partition.rows=3"),
    ("--accept-changes",),
    ("--accept-changes", "--set", "fetch.max_bytes=1000000", "--set", "sources.quiz.licence=other"),
]


def test_no_later_build_brings_it_back(recipe, run):
    assert takedown(run, "--id", WEB, "--id", PAPER, "--sha256", sha(56, (200, 66))) == 0
    for arguments in AGAIN:
        assert build(recipe, run, *arguments) == 0, arguments
        images, texts, ids = contents(run)
        assert not {sha(0), sha(56, (200, 66))} & images, arguments
        assert prose(0) not in texts, arguments
        assert not {WEB, "web/web.parquet#4", PAPER, QUIZ} & ids, arguments
        assert "web/web.parquet#1" in ids, arguments
        assert vlmill("verify", run) == 0, arguments


class Elsewhere:
    """Works as other processes would: whatever travels is pickled, and what was asked for last comes first."""

    def each(self, function, items):
        for index, item in reversed(list(enumerate(items))):
            there, sent = pickle.loads(pickle.dumps((function, item)))
            yield index, pickle.loads(pickle.dumps(there(sent)))


def test_a_new_folder_with_the_list_never_holds_it_and_has_the_same_shards_whoever_works(recipe, run, tmp_path):
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    assert takedown(run, "--id", WEB) == 0
    shutil.copyfile(run / LIST, fresh / LIST)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlmill.pipeline.engine.executor.open_executor", lambda *_: nullcontext(Elsewhere()))
        assert build(recipe, fresh) == 0
        assert sha(0) not in contents(fresh)[0]
        assert product(fresh) == product(run)
        assert takedown(fresh, "--id", QUIZ) == 0
    assert takedown(run, "--id", QUIZ) == 0
    assert product(fresh) == product(run)


def test_what_earlier_recipes_left_goes_with_it(small, small_built, tmp_path):
    """A fetch under other partitions holds the image as well, and no manifest names it."""
    root = Path(shutil.copytree(small_built, tmp_path / "run"))
    assert build(small, root, "--accept-changes", "--set", "partition.rows=4") == 0
    assert len({receipt.partition for receipt in read_manifest(root, "steps/web/fetch")}) == 2
    assert takedown(root, "--sha256", sha(0)) == 0
    assert sha(0) not in contents(root)[0]
    assert vlmill("verify", root) == 0


def test_killed_at_any_moment_the_same_command_ends_it(small, small_built, tmp_path):
    whole = Path(shutil.copytree(small_built, tmp_path / "whole"))
    assert takedown(whole, "--id", WEB) == 0
    wanted, deaths = {name: sha256 for name, (_, sha256) in snapshot(whole).items()}, 0
    for point in range(0, 1000, 28):
        root = Path(shutil.copytree(small_built, tmp_path / f"killed-{point}"))
        if not killed_at(point, takedown, root, "--id", WEB):
            break
        deaths += 1
        if (root / LIST).exists() and deaths % 2:  # every other time a build comes first
            assert build(small, root) == 0
        assert takedown(root, "--id", WEB) == 0
        assert {name: sha256 for name, (_, sha256) in snapshot(root).items()} == wanted
        assert vlmill("verify", root) == 0
    assert deaths > 3


def test_a_list_of_opt_outs_counts_as_it_was_when_the_run_was_built(small, small_built, tmp_path):
    """A takedown makes nothing else anew: the recipe's lists are for builds to read again."""
    folder = Path(shutil.copytree(small.parent, tmp_path / "input files"))
    recipe = write_recipe(folder, **{**WEB_ALONE, "filters": [{"opt_out": {"urls": ["out.txt"]}}]}, dedupe=None)
    (folder / "out.txt").write_text("http://img.small.test/1.png\n")
    root = tmp_path / "run"
    assert build(recipe, root) == 0
    (folder / "out.txt").write_text("http://img.small.test/2.png\n")
    assert takedown(root, "--id", WEB) == 0
    assert funnel(root, "web")["images"]["dropped"] == {"opt_out_list": 1, "taken_down": 2}
    assert build(recipe, root, "--retry-failed") == 0
    shown = {
        node["sha256"]
        for path in (root / "shards").rglob("*.lineage.parquet")
        for row in read_rows(path)
        for node in row["nodes"]
    }
    assert sha(1) in shown
    assert not {sha(0), sha(2)} & shown
    assert vlmill("verify", root) == 0


def test_what_is_held_against_benchmarks_still_is_and_the_benchmarks_stay(tmp_path):
    from tests.helpers.upstream import cauldron

    against = {"exam": {"kind": "cauldron", "files": "exam.parquet"}}
    recipe = write_recipe(
        tmp_path / "input files",
        sources={"quiz": SOURCES["quiz"]},
        decontaminate={"against": against, "action": "drop"},
        dedupe={"buckets": 1},
        stages=[],
    )
    cauldron(tmp_path / "input files/exam.parquet", [([picture(53, (200, 63))], [("What is it?", "A field.")])])
    root = tmp_path / "run"
    assert build(recipe, root) == 0
    assert funnel(root, "quiz")["images"]["dropped"] == {"contaminated_image": 1}
    kept = {name: state for name, state in snapshot(root).items() if name.startswith("steps/benchmarks/")}
    assert takedown(root, "--id", QUIZ) == 0
    assert funnel(root, "quiz")["images"]["dropped"] == {"contaminated_image": 1, "taken_down": 1}
    assert {name: state for name, state in snapshot(root).items() if name.startswith("steps/benchmarks/")} == kept
    assert vlmill("verify", root) == 0
    _, answer = answer_what_if(str(root), None, {"decontaminate.action": "report"}, [])
    assert answer.sources["quiz"]["images"].then == funnel(root, "quiz")["images"]["kept"] + 1
    before = product(root)
    assert build(recipe, root) == 0
    assert product(root) == before


def test_a_folder_may_be_named_from_where_one_stands_and_needs_no_tokenizer(tmp_path, monkeypatch):
    recipe = write_recipe(tmp_path, **WEB_ALONE, dedupe=None)
    assert build(recipe, tmp_path / "counted") == 0
    data = {key: value for key, value in yaml.safe_load(recipe.read_text()).items() if key != "tokenizer"}
    recipe.write_text(yaml.safe_dump(data))
    assert build(recipe, tmp_path / "uncounted") == 0
    monkeypatch.chdir(tmp_path)
    for run in ("counted", "uncounted"):
        assert takedown(run, "--id", WEB) == 0
        assert vlmill("verify", run) == 0


# -- bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "say what to take down"),
        (("--sha256", "abc"), "64 hexadecimal digits"),
        (("--id", "nonsense"), "is no sample id"),
        (("--id", "web/web.parquet#99"), "no such sample"),
        (("--domain", "http://a.test/"), "give a host such as example.org"),
        (("--domain", "*.a.test"), "give a host such as example.org"),
        (("--url", " "), "give the address of an image or a document"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_written(built, capsys, arguments, words):
    assert takedown(built, *arguments) == 1
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (built / LIST).exists()


def test_a_path_that_nothing_is_called_is_said_to_be_no_address(built, capsys):
    assert takedown(built, "--dry-run", "--url", "pictures/1.png") == 0
    assert "names only what rows name just so" in " ".join(capsys.readouterr().out.split())
    assert takedown(built, "--dry-run", "--url", "http://gone.test/1.png") == 0
    assert "just so" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hosts: [a.test]", "unexpected keyword argument 'hosts'"),
        ("domains: a.test", "domains: a list of texts is expected, not 'a.test'"),
        ("domains: [a.test, 7]", "domains: a list of texts is expected"),
        ("domains: ['http://a.test/']", "give a host such as example.org"),
        ("sha256: [abc]", "64 hexadecimal digits"),
        ("domains: {", "is no list of takedowns"),
        ("", "is no list of takedowns"),
        ("rows: [web/a#1]", "expected the id of a sample, a space, and id:SHA256 or text:SHA256"),
    ],
)
def test_a_list_that_would_keep_nothing_out_is_refused(tmp_path, text, words):
    """Somebody may have written it by hand, or copied half of it."""
    (tmp_path / LIST).write_text(text)
    with pytest.raises(StoreError, match="is no list of takedowns") as refused:
        TakedownList.read(tmp_path)
    assert words in str(refused.value)


def test_a_list_written_by_hand_names_what_it_means(tmp_path):
    text = (
        f"domains: [B.test, A.Test.]\nsha256: [{'AB' * 32}]\nurls: ['HTTP://A.test:80/1.png#top']\ntexts: "
        f"[{'cd' * 32}]\n"
    )
    (tmp_path / LIST).write_text(text)
    assert TakedownList.read(tmp_path) == TakedownList(
        ("a.test", "b.test"), (), (), ("ab" * 32,), ("cd" * 32,), ("http://a.test/1.png",)
    )


# -- the parts

NAMES = {
    "domains": "abcd",
    "ids": [f"web/a.parquet#{row}" for row in range(4)],
    "rows": [f"web/a.parquet#{row} {mark}:{'ab' * 32}" for row in range(2) for mark in ("id", "text")],
    "urls": "abcd",
}
listed = st.builds(
    TakedownList, **{name: st.lists(st.sampled_from(values)).map(tuple) for name, values in NAMES.items()}
)


@settings(max_examples=30, deadline=None)
@given(listed, listed)
def test_lists_add_up_in_any_order_and_survive_their_file(tmp_path_factory, one, other):
    both = one | other
    assert both == other | one == both | one
    assert not (both - one) - other
    root = tmp_path_factory.mktemp("list")
    (root / LIST).write_text(both.to_yaml())
    assert TakedownList.read(root) == both


@settings(max_examples=30, deadline=None)
@given(st.lists(st.from_regex(r"[a-z]{1,5}", fullmatch=True), min_size=1, max_size=4), st.integers(0, 3))
def test_an_address_falls_under_its_host_and_every_domain_above_and_no_other(labels, depth):
    host = ".".join([*labels, "test"])
    above = ".".join([*labels, "test"][min(depth, len(labels)) :])
    under = parse_rules([], [], [], [above]).address()
    assert under(f"https://{host}:8443/a?b#c") == f"domain {above}"
    assert under(f"http://x{above}/") == ""
    assert under(f"http://{host}.org/") == ""
    assert under("a.pdf#page=1") == under(None) == ""


def test_addresses_are_compared_in_one_spelling():
    assert spell_address("HTTP://Exämple.test:80/a b#c") == spell_address("http://xn--exmple-cua.test/a%20b")
    assert spell_address("a.pdf#page=1") == "a.pdf#page=1"


def test_an_address_goes_under_https_and_www_too_and_no_other_goes_with_it():
    under = parse_rules(["http://a.test/1.png", "a.pdf"], [], [], []).address()
    for same in ("http://a.test/1.png", "https://a.test/1.png", "HTTP://www.A.test:80/1.png#x"):
        assert under(same) == "url http://a.test/1.png"
    assert under("a.pdf") == "url a.pdf"
    assert {under(other) for other in ("http://a.test/1.png?x", "http://b.test/1.png", "a.pdf#page=1", "b.pdf")} == {""}


def tables(folder, samples, image_stats):
    """A partition of samples and images, the bytes of image n being b"n"."""
    folder.mkdir(exist_ok=True)
    write_samples(folder / "samples.parquet", samples)
    rows = [
        {"image": stats.image, "url": f"http://a.test/{stats.image}", "bytes": b"%d" % stats.image}
        for stats in image_stats
    ]
    write_rows(folder / "images.parquet", IMAGES, rows)
    write_image_stats(folder / "image_stats.parquet", image_stats)
    assert pq.read_schema(folder / "image_stats.parquet").equals(IMAGE_STATS)
    return {path.name: path for path in folder.iterdir()}


def document(row, *images, url=""):
    nodes = [Node("text", text=f"text {row}"), *(Node("image", image=image) for image in images)]
    return Sample(SampleId("web", "a", row), tuple(nodes), url=url)


def test_with_a_document_go_the_images_that_no_other_shows(tmp_path):
    image_stats = [ImageStats(image, None, sha256=f"{image}") for image in range(4)] + [
        ImageStats(4, Reason.CONNECTION)
    ]
    inputs = tables(
        tmp_path, [document(0, 0, 1, 4, url="http://b.test/x"), document(1, 1, 2), document(2, 3)], image_stats
    )
    found = match_partition(parse_rules(["http://b.test/x"], [], [], []), inputs)
    by = "url http://b.test/x"
    assert found == Matches({0: by}, {0: by, 4: by}), "the address of one that could not be had goes too"
    assert Matches.read(_written(tmp_path, found)) == found


def _written(folder, found):
    (folder / "found.json").write_text(found.to_json())
    return folder / "found.json"


def test_a_removed_row_holds_nothing_and_the_others_are_as_they_were(tmp_path):
    samples = [replace(document(0, 0), upstream_id="a"), replace(document(1, 1, 0), upstream_id="b")]
    inputs = tables(tmp_path / "raw", samples, [ImageStats(image, None, sha256=f"{image}") for image in range(2)])
    for table in ("images", "samples"):
        (tmp_path / table).mkdir()
        step = make_redaction(table, Matches({0: "id x"}, {0: "id x"}))
        counts = step.run({name: path for name, path in inputs.items() if name in step.reads}, tmp_path / table)
        assert counts[f"{table}_read"].to_json() == {"in": 2, "kept": 1, "dropped": {"taken_down": 1}, "failed": {}}
    first, second = read_samples(tmp_path / "samples/samples.parquet")
    assert first.taken_down
    assert (first.id, first.upstream_id) == (samples[0].id, "")
    assert [node.kind for node in first.nodes] == ["text", "image"]
    assert second == samples[1]
    gone, stays = read_rows(tmp_path / "images/images.parquet")
    assert (gone["bytes"], gone["url"], gone["reason"]) == (None, None, "taken_down")
    assert stays["bytes"] == b"1"
    image_stats = [ImageStats(0, Reason.TAKEN_DOWN), ImageStats(1, None)]
    assert apply_verdicts(first, [], image_stats).sample is Reason.TAKEN_DOWN
    assert apply_verdicts(second, [], image_stats).nodes == (None, None, Reason.TAKEN_DOWN)


def test_what_is_removed_is_not_in_the_key_as_what_the_network_said_is_not():
    from vlmill.pipeline.core.keys import make_key

    assert make_key(Redact("samples", {0: "id a"}), {}) == make_key(Redact("samples", {1: "id b"}), {})
    assert make_key(Redact("samples"), {}) != make_key(Redact("images"), {})


def refuse(folder, *rows):
    """A table of refused rows: id, message, excerpt, and what the row is called."""
    made = [
        {
            **SampleId("web", "a", row)._asdict(),
            "reason": "bad_row",
            "detail": why,
            "excerpt": raw,
            "upstream_id": "".join(name),
        }
        for row, why, raw, *name in rows
    ]
    write_rows(folder / "refused.parquet", REFUSED, made)


def test_a_refused_row_falls_under_its_id_and_the_addresses_that_it_shows_and_under_any_text(tmp_path):
    inputs = tables(tmp_path, [document(9)], [])
    refuse(
        tmp_path,
        (0, "wrong", '{"url": "https://www.img.b.test/7.png"}'),
        (1, "image 0 is http://a.test/x.", ""),
        (2, "wrong", r"http:\/\/c.test\/1"),
        (3, "no turns", ""),
        (4, "no answer", "{", "https://d.test/4"),
    )
    inputs = {**inputs, "refused.parquet": tmp_path / "refused.parquet"}
    assert match_partition(parse_rules([], [], [], ["b.test", "c.test"]), inputs).refused == {
        0: "domain b.test",
        2: "domain c.test",
    }
    assert match_partition(parse_rules(["http://a.test/x"], [], ["web/a#3"], []), inputs).refused == {
        1: "url http://a.test/x",
        3: "id web/a#3",
    }
    assert match_partition(parse_rules([], [], [], ["d.test"]), inputs).refused == {4: "domain d.test"}
    assert match_partition(TakedownList(texts=("0" * 64,)), inputs).refused.keys() == {0, 2, 4}, (
        "an excerpt may be of a text that is named by its sha256"
    )
    step = make_redaction("refused", match_partition(parse_rules([], [], [], ["b.test", "d.test"]), inputs))
    (tmp_path / "out").mkdir()
    step.run({name: path for name, path in inputs.items() if name in step.reads}, tmp_path / "out")
    first, second, *_, last = read_rows(tmp_path / "out/refused.parquet")
    assert (last["upstream_id"], last["excerpt"]) == ("", "")
    assert (first["row"], first["reason"], first["detail"], first["excerpt"]) == (0, "bad_row", "", "")
    assert second["detail"]
    after = {**inputs, **{path.name: path for path in (tmp_path / "out").iterdir()}}
    assert not match_partition(parse_rules([], [], [], ["b.test"]), after)


def test_what_was_shown_of_a_refused_row_goes_from_the_disk_by_its_id(tmp_path, capsys):
    talk = {"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cup on a table."}]}
    bad = {"conversations": [{"from": "human", "value": "Jane Doe, 1 Sample Street"}]}
    other = {"conversations": [{"from": "human", "value": "Jane Roe, 2 Sample Street"}]}
    (tmp_path / "rows.json").write_text(json.dumps([talk, bad, other]))
    input_file = {"talk": {"kind": "llava", "files": "rows.json"}}
    recipe, root = write_recipe(tmp_path, sources=input_file, filters=[], stages=[], dedupe=None), tmp_path / "run"

    def tables_with_the_name():
        paths = [path for path in root.rglob("*.parquet") if "excerpt" in pq.read_schema(path).names]
        return [["Jane" in row["excerpt"] for row in read_rows(path)] for path in paths]

    assert build(recipe, root) == 0
    assert tables_with_the_name() == [[True, True]]
    made = snapshot(root / "shards")
    assert takedown(root, "--id", "talk/rows.json#1") == 0
    assert "the beginning of 1 rows of which no sample was made" in said(capsys)
    assert tables_with_the_name() == [[False, True]]
    assert snapshot(root / "shards") == made, "nothing was made of it"
    for options in ((), ("--rebuild",), ("--retry-failed",)):
        assert build(recipe, root, *options) == 0
        assert tables_with_the_name() == [[False, True]]
    assert vlmill("verify", root) == 0
    capsys.readouterr()
    assert vlmill("trace", root, "talk/rows.json#1") == 0
    assert "taken down by id talk/rows.json#1" in said(capsys)


def write_tickets(path, numbers, names):
    """Rows of conversations: an answer in words, a turn with an image, and a row that is no conversation."""
    rows = []
    for number in numbers:
        said = [
            {"role": "user", "content": f"<image>\nWhat is wrong with lift {number}?"},
            {"role": "assistant", "content": f"Door {number} is bent."},
        ]
        (path.parent / f"{number}.png").write_bytes(picture(number))
        row = {"messages": said if number % 3 else said[:1], "image": f"{number}.png"}
        rows.append(row | ({"id": names(number)} if names else {}))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("names", [lambda number: f"T-{number}", lambda _: "same", None], ids=["own", "shared", "none"])
@pytest.mark.parametrize("gone", [4, 6], ids=["sample", "refused"])
def test_a_row_stays_out_wherever_it_stands_in_a_changed_file_and_the_one_in_its_place_comes_in(tmp_path, names, gone):
    sources = {"talk": {"kind": "llava", "files": "rows.jsonl"}}
    write_tickets(tmp_path / "rows.jsonl", range(1, 9), names)
    recipe, root = write_recipe(tmp_path, sources=sources, filters=[], stages=[], dedupe=None), tmp_path / "run"
    assert build(recipe, root) == 0
    name = f"talk/rows.jsonl#{gone - 1}" if names is None or names(1) == "same" else names(gone)
    assert takedown(root, "--id", name) == 0

    def list_held():
        paths = [path for path in root.rglob("*.parquet") if "excerpt" in pq.read_schema(path).names]
        excerpts = " ".join(row["excerpt"] for path in paths for row in read_rows(path))
        texts = " ".join(contents(root)[1]) + excerpts
        return {number for number in range(1, 12) if f"with lift {number}?" in texts}

    assert list_held() == {*range(1, 9)} - {gone}
    write_tickets(tmp_path / "rows.jsonl", [*range(2, 9), 10], names)
    assert build(recipe, root, "--accept-changes") == 0
    in_place = set() if name.startswith("T-") else {gone + 1}  # nothing says that it is another
    assert list_held() == {*range(2, 9), 10} - {gone} - in_place
    assert vlmill("verify", root) == 0


def test_what_stands_later_in_the_place_of_what_was_taken_down_can_be_taken_down_too(tmp_path):
    sources = {"talk": {"kind": "llava", "files": "rows.jsonl"}}
    recipe, root = write_recipe(tmp_path, sources=sources, filters=[], stages=[], dedupe=None), tmp_path / "run"

    def list_gone(numbers, *, taken):
        write_tickets(tmp_path / "rows.jsonl", numbers, lambda number: f"T-{number}")
        assert build(recipe, root, "--accept-changes") == 0
        if taken:
            assert takedown(root, "--id", "talk/rows.jsonl#1") == 0
        texts = " ".join(contents(root)[1])
        return [number for number in numbers if f"Door {number} is bent." not in texts]

    assert list_gone([1, 2, 4, 5], taken=True) == [2]
    assert list_gone([2, 4, 5], taken=False) == [2]
    assert list_gone([2, 4, 5], taken=True) == [2, 4]
    assert list_gone([1, 2, 4, 5], taken=False) == [2, 4]
    assert vlmill("verify", root) == 0


def test_all_rows_of_one_id_go_from_every_source_and_none_of_another(tmp_path, capsys):
    ids = ["T-1", "T-2", "T 3", "T-1", "T-10"]
    names = dict(zip(range(1, 6), ids, strict=True))
    for source in ("talk", "more"):
        write_tickets(tmp_path / f"{source}.jsonl", names, names.get)  # the third row of each is no conversation
    sources = {name: {"kind": "llava", "files": f"{name}.jsonl"} for name in ("talk", "more")}
    recipe, root = write_recipe(tmp_path, sources=sources, filters=[], stages=[], dedupe=None), tmp_path / "run"
    assert build(recipe, root) == 0
    assert takedown(root, "--id", "T-1") == 1
    error = " ".join(capsys.readouterr().err.split())
    assert "4 samples or lost rows have the id 'T-1' in their input files" in error
    assert "more/more.jsonl#0, more/more.jsonl#3, talk/talk.jsonl#0, talk/talk.jsonl#3; vlmill takedown" in error
    assert takedown(root, "--row-id", "T-1", "--row-id", "T 3", "--dry-run", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    four = {f"{name}/{name}.jsonl#{row}" for name in ("talk", "more") for row in (0, 3)}
    assert ({*found["samples"]}, {*found["refused"]}) == (four, {"more/more.jsonl#2", "talk/talk.jsonl#2"})
    assert takedown(root, "--row-id", "T-1", "--row-id", "T 3") == 0
    texts = " ".join(contents(root)[1])
    assert [number for number in names if f"Door {number} is bent." in texts] == [2, 5]
    capsys.readouterr()
    for name, error in (("T 3", "T 3 was taken down: it stands as"), ("T-7", "no row of the run has the id 'T-7'")):
        assert takedown(root, "--row-id", name) == 1
        assert error in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("own", [True, False])
def test_rows_without_an_id_of_their_own_are_said_to_be_known_by_their_place(own, tmp_path, capsys):
    sources = {"talk": {"kind": "llava", "files": "rows.jsonl"}}
    names = (lambda number: f"T-{number}") if own else None
    write_tickets(tmp_path / "rows.jsonl", [1, 2, 4, 5], names)
    recipe, root = write_recipe(tmp_path, sources=sources, filters=[], stages=[], dedupe=None), tmp_path / "run"
    assert build(recipe, root) == 0
    capsys.readouterr()
    assert takedown(root, "--id", "talk/rows.jsonl#1") == 0
    told = said(capsys)
    assert ("1 of these have no id of their own in the input file" in told) != own
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    (tmp_path / "rows.jsonl").write_text("\n".join([lines[0], "{}", *lines[2:]]) + "\n")
    assert build(recipe, root, "--accept-changes") == 0
    texts = " ".join(contents(root)[1])
    assert [number for number in (1, 2, 4, 5) if f"Door {number} is bent." in texts] == [1, 4, 5]


def test_a_row_that_was_taken_down_is_said_to_be_by_its_own_id(tmp_path, capsys):
    sources = {"talk": {"kind": "llava", "files": "rows.jsonl"}}
    write_tickets(tmp_path / "rows.jsonl", range(1, 9), lambda number: f"T-{number}")
    recipe, root = write_recipe(tmp_path, sources=sources, filters=[], stages=[], dedupe=None), tmp_path / "run"
    assert build(recipe, root) == 0
    assert takedown(root, "--id", "T-99") == 1
    assert takedown(root, "--id", "T-4") == 0
    capsys.readouterr()
    assert build(recipe, root) == 0
    assert "1 taken down, in no share" in said(capsys)
    assert vlmill("trace", root, "T-4") == 1
    assert "T-4 was taken down: it stands as talk/rows.jsonl#3 on" in " ".join(capsys.readouterr().err.split())
    assert "T-4" not in (root / LIST).read_text()


def test_filters_are_not_shown_what_was_taken_down(tmp_path):
    from dataclasses import replace

    from vlmill.pipeline.filters.base import FilterStep

    class Watching:
        name, version, image_stats = "watching", 1, ()

        def made_by(self):
            return {}

        def decide(self, samples, image_stats):
            shown.extend(row for row, _ in samples)
            return iter(())

    shown = []
    gone = replace(document(0, 0), nodes=(Node("text"), Node("image", required=True)))
    write_samples(tmp_path / "samples.parquet", [document(0), gone, document(2)])
    (tmp_path / "out").mkdir()
    counts = FilterStep(Watching()).run({"samples.parquet": tmp_path / "samples.parquet"}, tmp_path / "out")
    assert shown == [0, 2]
    assert counts["filtered"].came == 2


def test_only_documents_have_copies_by_their_text():
    words = {"kind": "text", "text": "words", "required": False}
    assert hash_text([words]) == hashlib.sha256(b"words").hexdigest()
    assert hash_text([words, {"kind": "image", "text": None, "required": True}]) == ""
    assert hash_text([{**words, "text": " \n"}]) == ""


def test_the_picture_helper_is_what_the_origin_serves(recipe):
    assert (recipe.parent / "served/0.png").read_bytes() == picture(0, (160, 120))
    assert picture(0, (160, 120)) != picture(1, (160, 120))
    assert io.BytesIO(picture(0, (160, 120))).read(4) == b"\x89PNG"
