"""Decontamination: planted copies are found, lookalikes are left alone, the action changes only verdicts."""

from __future__ import annotations

import base64
import csv
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.helpers.small import NOUNS, vlmill
from tests.helpers.upstream import cauldron, encoded, json_array, obelics, talk
from tests.pipeline.test_dedupe_picture import (
    bordered,
    bordered_twice,
    captioned,
    cropped,
    cropped_more,
    drawing,
    grey,
    marked,
    padded,
    paled,
    recompressed,
    saturated,
)
from vlmill.api.builds import forecast_changes
from vlmill.api.builds import load_recipe as read_for_api
from vlmill.pipeline.core.compared_text import split_words
from vlmill.pipeline.core.errors import RecipeError, SourceError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    Node,
    Sample,
    SampleId,
    write_image_stats,
    write_samples,
)
from vlmill.pipeline.decontaminate import BuildIndex, Split
from vlmill.pipeline.decontaminate.index import FOLDER, read_index
from vlmill.pipeline.decontaminate.pictures import make_gallery
from vlmill.pipeline.decontaminate.texts import Search, split_passages
from vlmill.pipeline.decontaminate.words import RUN, find_runs, find_sequence, number_words
from vlmill.pipeline.dedupe.picture import collect_pictures
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.pipeline.reports.funnel import read_funnel
from vlmill.pipeline.reports.trace import trace_sample
from vlmill.pipeline.reports.what_if import answer_what_if
from vlmill.pipeline.sources import SOURCES
from vlmill.pipeline.steps.image_stats import compute_image_stats

LONG = (
    "Which of the two bridges that cross the river near the old mill was finished before the railway came to the town?"
)
SHORT = "What is in the image?"
TEMPLATE = "How many of the coloured shapes that are shown in this picture have more than four corners each?"
ANSWERED = "Who painted the ceiling of the small chapel behind the harbour?"
CHOSEN = "Which animal hides its food below the roots of trees and forgets where most of it is in spring?"


def shown(seed, change=lambda image: image, form="PNG", **options):
    return encoded(change(drawing(seed)), form, **options)


def halved(image):
    return image.resize((image.width // 2, image.height // 2))


def cut(image):
    return image.crop((image.width // 30, image.height // 30, image.width - image.width // 40, image.height))


def another_patch(image):
    image = image.copy()
    image.paste((250, 20, 20) if image.getpixel((160, 120))[0] < 128 else (20, 20, 250), (140, 100, 190, 150))
    return image


def tinted(image):
    return Image.merge("RGB", [image.getchannel(channel) for channel in "BGR"])


BENCHMARK = [  # question, answer, seed of the picture
    (LONG, "The stone bridge.", 1),
    (SHORT, "A boat", 2),
    (ANSWERED, "Anna Maria Keller", 3),
    *((TEMPLATE, str(number), 10 + number) for number in range(5)),
]

QUIZ = [  # what comes of it, picture, question, answer
    ("image", shown(1, form="JPEG", quality=50), "Describe this.", "A drawing."),
    ("image", shown(2, halved), "Describe this.", "A drawing."),
    ("image", shown(3, cut), "Describe this.", "A drawing."),
    ("image text", shown(2), "WHAT is in the image", "Something"),
    ("text", shown(101), LONG.upper().replace("?", " !"), "the STONE bridge"),
    ("", shown(102), SHORT, "A boat"),
    ("", shown(103), TEMPLATE, "3"),
    ("", shown(104), "What is beside the door?", "A boat"),
    ("", shown(1, another_patch), "Describe this.", "A drawing."),
    ("", shown(2, tinted), "Describe this.", "A drawing."),
    ("", shown(105), LONG.replace("river", "3 rivers"), "Two of them"),
]

PROSE = "The harbour was quiet in the morning and the boats were lying on the sand. "
WEB = [
    ("text", [PROSE, f"{PROSE} Quiz. {ANSWERED} Answer: Anna Maria Keller. {PROSE}", PROSE]),
    ("image", [PROSE, "http://img.test/copy.jpg", "http://img.test/other.png", PROSE]),
    ("text", [LONG, "It was the other one."]),
    ("", [PROSE, "http://img.test/other.png", f"{SHORT} A boat."]),
    ("", [PROSE, f"{ANSWERED} Nobody knows.", PROSE]),
]


def write_data(folder):
    (folder / "served").mkdir(parents=True)
    (folder / "served/copy.jpg").write_bytes(shown(1, halved, form="JPEG", quality=60))
    (folder / "served/other.png").write_bytes(shown(110))
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = {
        "question": [question for question, _, _ in BENCHMARK],
        "answer": [answer for _, answer, _ in BENCHMARK],
        "image": [{"bytes": shown(seed), "path": ""} for _, _, seed in BENCHMARK],
    }
    schema = pa.schema({"question": pa.string(), "answer": pa.string(), "image": image})
    pq.write_table(pa.table(table, schema=schema), folder / "test.parquet", row_group_size=3)
    with (folder / "dev.tsv").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(["index", "question", "A", "B", "answer", "image"])
        writer.writerow([0, CHOSEN, "A squirrel", "A hedgehog", "A", base64.b64encode(shown(30)).decode()])
    cauldron(folder / "quiz.parquet", [([data], [(question, answer)]) for _, data, question, answer in QUIZ])
    cauldron(folder / "chat.parquet", [([], [("Hello. " + CHOSEN, "The squirrel does.")]), ([], [(SHORT, "A boat")])])
    obelics(folder / "web.parquet", [nodes for _, nodes in WEB])


def recipe(folder, **changes):
    if not (folder / "quiz.parquet").exists():
        write_data(folder)
    exam = {
        "files": {"test": "test.parquet", "dev": "dev.tsv"},
        "options": {"question": "question", "answers": "answer", "images": "image"},
    }
    data = {
        "name": "held-against",
        "sources": {
            "quiz": {"kind": "cauldron", "files": "quiz.parquet"},
            "chat": {"kind": "cauldron", "files": "chat.parquet"},
            "web": {"kind": "obelics", "files": "web.parquet", "serve": {"http://img.test/": "served"}},
        },
        "fetch": {"retries": 0, "timeout_s": 5},
        "filters": [],
        "dedupe": {},
        "policies": {"small": {"kind": "letterbox", "side": 28, "patch": 14}},
        "decontaminate": {"against": {"exam": exam}},
    }
    path = folder / f"recipe-{len(list(folder.glob('recipe-*')))}.yaml"
    path.write_text(yaml.safe_dump({**data, **changes}))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def built(data, tmp_path_factory):
    root = tmp_path_factory.mktemp("built") / "run"
    assert vlmill("build", recipe(data), "--out", root, "--workers", 0) == 0
    return root


@pytest.fixture(scope="module")
def dropped(data, built, tmp_path_factory):
    """The same run, built on with another action."""
    root = shutil.copytree(built, tmp_path_factory.mktemp("dropped") / "run")
    action = ("--set", "decontaminate.action=drop", "--accept-changes")
    assert vlmill("build", recipe(data), "--out", root, "--workers", 0, *action) == 0
    return root


def reported(root, capsys):
    capsys.readouterr()
    assert vlmill("report", root, "--section", "contamination", "--json", "--examples", 99) == 0
    return json.loads(capsys.readouterr().out)["contamination"]["found"]


def examples(report):
    """(training sample, item) -> how it was found."""
    return {
        (example["sample"], example["item"]): " ".join(example["by"])
        for book in report["benchmarks"].values()
        for line in book["sources"].values()
        for example in line["examples"]
    }


def tables(root, step):
    paths = sorted(root.glob(f"steps/*/{step}/*.parquet"))
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


# -- what is found


def test_what_was_planted_is_found_and_innocents_are_left_alone(built, capsys):
    found = {}
    for (sample, _), how in examples(reported(built, capsys)).items():
        found[sample] = " ".join(sorted({*found.get(sample, "").split(), *how.split()}))
    expected = {f"quiz/quiz.parquet#{row}": how for row, (how, *_) in enumerate(QUIZ) if how}
    expected |= {f"web/web.parquet#{row}": how for row, (how, _) in enumerate(WEB) if how}
    expected["chat/chat.parquet#0"] = "text"
    assert found == expected


def test_a_finding_names_the_item_and_its_split(built, capsys):
    report = reported(built, capsys)
    assert report["action"] == "report"
    assert {name: book["items"] for name, book in report["benchmarks"].items()} == {"exam.dev": 1, "exam.test": 8}
    found = examples(report)
    assert found["quiz/quiz.parquet#4", "exam.test/test.parquet#0"] == "text"
    assert found["web/web.parquet#1", "exam.test/test.parquet#0"] == "image"
    assert found["chat/chat.parquet#0", "exam.dev/dev.tsv#0"] == "text"
    line = report["benchmarks"]["exam.test"]["sources"]["quiz"]
    assert line["samples"] == {"any": 5, "image": 4, "text": 2, "both": 1}
    assert vlmill("report", built, "--section", "contamination", "--examples", 1) == 0
    assert "exam.dev: chat/chat.parquet#0 has exam.dev/dev.tsv#0 (by text)" in capsys.readouterr().out


# -- what stands behind a question


def asked_by(question, choices=(), *answers):
    """A benchmark's sample, as the evaluation source makes them."""
    texts = [Node("text", "user", text=text) for text in (question, "\n".join(choices)) if text]
    return [*texts, *(Node("text", "assistant", supervised=True, text=answer) for answer in answers)]


def search_for(folder, *samples):
    """A search for the items of a benchmark. Each of its pictures is another one."""
    folder.mkdir(parents=True)
    count = sum(node.kind == "image" for nodes in samples for node in nodes)
    named = (Sample(SampleId("exam", "f", row), tuple(nodes)) for row, nodes in enumerate(samples))
    write_samples(folder / "samples.parquet", named)
    write_image_stats(folder / "image_stats.parquet", [compute_image_stats(row, shown(row)) for row in range(count)])
    (out := folder / "index").mkdir()
    names = ("samples.parquet", "image_stats.parquet")
    BuildIndex(image=0.95).run({f"exam/0/{name}": folder / name for name in names}, out)
    return Search(read_index({f"{FOLDER}/{path.name}": path for path in out.iterdir()}), 0.8)


def found_in(search, nodes):
    """The rows of the benchmark's samples that a training sample without pictures asks."""
    own = list(split_passages(0, Sample(SampleId("train", "f", 0), tuple(nodes)), search.benchmarks))
    hits = search.hits(own, [None] * len(own))
    return sorted({int(search.benchmarks.items[hit.item].id.rpartition("#")[2]) for hit in hits})


def told(question, answer, role="user"):
    """A training sample: a turn, or with the role `none` a document."""
    if role == "none":
        return [Node("text", "none", supervised=True, text=f"{PROSE}{question} {answer} {PROSE}")]
    return asked_by(question, (), answer)


LETTERS = "ABCD"


def lettered(choices):
    return "\n".join(f"({letter}) {choice}" for letter, choice in zip(LETTERS, choices, strict=True))


BEHIND = {  # what training data has behind the question, and as its answer
    "the answer": lambda choices, right: ("", choices[right]),
    "the choices, the letter": lambda choices, right: ("\n" + "\n".join(choices), LETTERS[right]),
    "the choices, the answer": lambda choices, right: ("\n" + "\n".join(choices), choices[right]),
    "them in another order": lambda choices, right: ("\n" + "\n".join(choices[::-1]), LETTERS[3 - right]),
    "them with letters": lambda choices, right: (
        f"\nOptions:\n{lettered(choices)}\nAnswer with a letter.",
        LETTERS[right],
    ),
    "both": lambda choices, right: (f" Choose one.\n{lettered(choices[2:] + choices[:2])}", LETTERS[(right + 2) % 4]),
    "the question once more": lambda choices, right: ("", f"{choices[right]}. {PROSE * 5}That is why {{question}}"),
}


@pytest.mark.parametrize("role", ["user", "none"])
@pytest.mark.parametrize("behind", BEHIND)
@settings(max_examples=8, deadline=None, phases=(Phase.generate,))
@given(data=st.data())
def test_a_question_is_found_with_its_answer_whichever_choice_that_is(tmp_path_factory, behind, role, data):
    chosen = data.draw(st.permutations(NOUNS))
    size, each = data.draw(st.integers(RUN, 16)), data.draw(st.integers(1, 4))
    question = f"{' '.join(chosen[:size])}?"
    choices = [" ".join(chosen[size + place * each :][:each]) for place in range(4)]
    for right in range(4):
        search = search_for(tmp_path_factory.mktemp("item") / "item", asked_by(question, choices, choices[right]))
        rest, answer = BEHIND[behind](choices, right)
        assert found_in(search, told(question + rest, answer.format(question=question), role)) == [0], right


@pytest.mark.parametrize("right", range(4))
@pytest.mark.parametrize(
    ("answer", "found"), [("the old stone bridge", True), ("Nobody has told me yet.", True), ("", True)]
)
def test_a_question_of_enough_words_is_found_whatever_follows(tmp_path, right, answer, found):
    choices = ["the old stone bridge", "the new rope bridge", "the iron one", "neither"]
    search = search_for(tmp_path / "item", asked_by(LONG, choices, choices[right]))
    assert bool(found_in(search, told(LONG, answer))) == found


@pytest.mark.parametrize("wrong", range(3))
def test_a_short_question_with_another_answer_counts_by_its_words_whichever_choice_that_is(tmp_path, wrong):
    """Eleven words: one of a choice is too little, two make up the thirteen."""
    for choices, found in ((["Anna", "Otto", "Ida", "Karl"], []), (["Anna M", "Otto B", "Ida C", "Karl D"], [0])):
        search = search_for(tmp_path / str(len(found)), asked_by(ANSWERED, choices, choices[3]))
        assert found_in(search, told(ANSWERED, choices[wrong])) == found


@pytest.mark.parametrize(
    ("question", "choices"),
    [
        ("What is this?", ["cat", "dog"]),
        ("Is there a red circle here?", ["yes", "no"]),
        (SHORT, ["A boat", "A small dog"]),
    ],
)
@pytest.mark.parametrize("right", [0, 1])
def test_what_is_asked_of_everything_is_not_found_with_its_answer(tmp_path, question, choices, right):
    search = search_for(tmp_path / "item", asked_by(question, choices, choices[right]))
    assert found_in(search, told(question, choices[right])) == []
    assert found_in(search, told(question, choices[right], "none")) == []


def test_a_template_is_not_found_with_a_choice_that_makes_it_telling(tmp_path):
    """The same is asked of five pictures; only choices tell the questions apart, and one alone is no evidence."""
    question = "Which of these states lies farthest to the north?"
    items = [
        [Node("image", "user", image=place), *asked_by(question, [f"{noun} Hills", "Iowa"], f"{noun} Hills")]
        for place, noun in enumerate(NOUNS[:5])
    ]
    search = search_for(tmp_path / "items", *items)
    assert found_in(search, told(question, "amber Hills")) == []
    assert found_in(search, told(question, "Iowa")) == []


def test_a_question_that_ends_as_all_of_its_benchmark_do_is_found_without_its_choices(tmp_path):
    """Its last words are telling only together with its choices, which copies may not have."""
    end = "Please answer this question with the letter of the right choice."
    begun = [" ".join(NOUNS[place : place + 8]) for place in range(0, 35, 7)]
    items = [asked_by(f"{text}? {end}", [f"{text} {LETTERS[:2]}", "none"], "none") for text in begun]
    search = search_for(tmp_path / "items", *items)
    assert 2 in found_in(search, told(f"{begun[2]}? {end}", "I do not know."))


def test_words_of_a_question_that_stand_far_apart_are_not_the_question(tmp_path):
    search = search_for(tmp_path / "item", asked_by(LONG, (), "The stone bridge."))
    first, second = LONG.split()[:12], LONG.split()[10:]
    assert found_in(search, told(f"{' '.join(first)}. {PROSE * 9} {' '.join(second)}", "", "none")) == []
    assert found_in(search, told(f"{' '.join(first[:10])} {' '.join(second)}", "", "none")) == [0]


def test_a_question_around_its_picture_is_found_whole(tmp_path):
    """Two texts with a picture between them are no question with choices."""
    picture = Node("image", "user", image=0)
    begin, end = Node("text", "user", text="Look:"), Node("text", "user", text=ANSWERED)
    answer = Node("text", "assistant", supervised=True, text="Anna Maria Keller")
    search = search_for(tmp_path / "around", [begin, picture, end, answer])
    assert found_in(search, told(ANSWERED, "Anna Maria Keller")) == [0]


# -- what becomes of it


def test_a_report_keeps_everything_and_a_drop_drops_what_it_names(built, dropped, capsys):
    assert not list(built.glob("steps/*/decontaminate"))
    assert trace_sample(built, "quiz/quiz.parquet#0").outcome.sample is None
    root = dropped
    assert tables(root, "contamination") == tables(built, "contamination")
    assert examples(reported(root, capsys)) == examples(reported(built, capsys))
    traced = trace_sample(root, "quiz/quiz.parquet#0")
    assert traced.outcome.sample == Reason.REQUIRED_LOST
    assert [(verdict.reason, verdict.other) for verdict in traced.verdicts] == [
        (Reason.CONTAMINATED_IMAGE, "exam.test/test.parquet#0")
    ]
    assert trace_sample(root, "web/web.parquet#1").outcome.kept == (0, 2, 3), "a web document loses the picture alone"
    assert trace_sample(root, "web/web.parquet#0").outcome.kept == (0, 2), "and the paragraph that asks the question"
    assert trace_sample(root, "quiz/quiz.parquet#5").outcome.sample is None
    assert vlmill("verify", root) == 0


@pytest.mark.parametrize(("now", "then"), [("report", "drop"), ("drop", "report"), ("drop", "drop")])
def test_what_if_says_what_another_action_would_keep(data, built, dropped, now, then):
    root = {"report": built, "drop": dropped}
    books = {action: read_funnel(root[action]) for action in (now, then)}
    for named in ((str(root[now]), None), (str(recipe(data)), root[now])):
        _, answer = answer_what_if(*named, {"decontaminate.action": then}, [])
        for source, levels in answer.sources.items():
            for level, kept in levels.items():
                assert kept.now == books[now][source][level]["kept"]
                assert kept.then == books[then][source][level]["kept"]
        assert answer.changes == (now != then)
        assert not answer.notes or now == "drop"
    assert answer_what_if(str(dropped), None, {"decontaminate": "null"}, [])[1].changes


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("decontaminate.text", "0.9", r"(?s)and for decontaminate.action; this has to be built.*decontaminate.text"),
        ("decontaminate.against.exam.files", "test.parquet", "this has to be built"),
        ("decontaminate.action", "dropp", "'report' or 'drop'"),
    ],
)
def test_what_if_does_not_answer_for_other_benchmarks_or_thresholds(built, key, value, message):
    with pytest.raises(RecipeError, match=message):
        answer_what_if(str(built), None, {key: value}, [])


def test_what_if_of_a_recipe_whose_benchmarks_lie_elsewhere_is_for_those_of_the_run(data, built, dropped):
    moved = recipe(data, decontaminate={"against": {"exam": {"files": "dev.tsv"}}, "action": "drop"})
    _, answer = answer_what_if(str(moved), built, {}, [])
    assert answer.sources["quiz"]["samples"].then == read_funnel(dropped)["quiz"]["samples"]["kept"]
    assert answer.notes[0].startswith("benchmarks of")
    without = recipe(data)
    without.write_text(
        yaml.safe_dump({k: v for k, v in yaml.safe_load(without.read_text()).items() if k != "decontaminate"})
    )
    assert not answer_what_if(str(without), dropped, {}, [])[1].changes, (
        "what a recipe does not name stays as the run has it"
    )
    assert answer_what_if(str(recipe(data, decontaminate=None)), dropped, {}, [])[1].changes


def test_the_books_of_a_report_lose_nothing(built):
    counts = json.loads((built / "steps/quiz/contamination/manifest.json").read_bytes())["counts"]
    assert {name: line["in"] for name, line in counts.items()} == {
        "held_against_benchmarks": 11,
        "found_by_image": 4,
        "found_by_text": 2,
    }
    assert not any(line["dropped"] or line["failed"] for line in counts.values())


def test_the_forecast_of_a_moved_benchmark_says_that_its_files_decide(data, built, tmp_path):
    moved = read_for_api(recipe(data), sources={"exam": f"{tmp_path}/"})
    outcomes = {found.folder: found.outcome for found in forecast_changes(moved, built)}
    unsure = {folder for folder, outcome in outcomes.items() if outcome == "run again where the files differ"}
    assert unsure == {
        "steps/benchmarks/index",
        *(f"steps/{source}/contamination" for source in ("quiz", "chat", "web")),
    }
    assert {outcomes[folder] for folder in outcomes.keys() - unsure} == {"kept"}


def test_another_action_looks_at_nothing_again(built, dropped):
    before = [
        path.relative_to(built) for path in built.glob("steps/*/*/*.parquet") if path.parent.parent.name != "dedupe"
    ]
    assert [(dropped / path).stat().st_mtime_ns for path in before] == [
        (built / path).stat().st_mtime_ns for path in before
    ]
    assert tables(dropped, "decontaminate")


def test_findings_do_not_depend_on_how_the_data_are_cut(data, built, tmp_path, capsys):
    root = tmp_path / "run"
    assert vlmill("build", recipe(data, partition={"rows": 2}), "--out", root, "--workers", 0, "--until", "curate") == 0
    assert examples(reported(root, capsys)) == examples(reported(built, capsys))
    index = [sorted(folder.glob("steps/benchmarks/index/*.*.*")) for folder in (root, built)]
    contents = [
        {path.name.split(".", 2)[2]: path.read_bytes() for path in paths if path.suffix != ".json"} for paths in index
    ]
    assert contents[0] == contents[1]
    assert contents[0]


# -- the recipe


def test_benchmarks_come_from_a_fragment_and_the_lock_says_all(data, tmp_path):
    path = recipe(data, decontaminate={"against": {"own": {"files": "test.parquet"}}})
    one = "[{recipe: fragments/benchmarks, take: [decontaminate.against.mmmu]}]"
    there = "hf://datasets/acme/copy@v1"
    loaded, effective, _ = load_recipe(str(path), sources={"mmmu": there}, sets={"include": one})
    assert loaded.decontaminate.against["mmmu"].splits("mmmu")["mmmu.validation"] == Split(split="validation")
    assert list(effective["decontaminate"]["against"]) == ["mmmu", "own"]
    assert effective["decontaminate"]["against"]["mmmu"]["options"]["choices"] == "options"
    assert effective["decontaminate"]["against"]["mmmu"]["root"] == there
    moved = {"mmmu": str(tmp_path / "mine" / "*.parquet")}
    everything, _, _ = load_recipe(str(recipe(data)), moved, sets={"include": "[{recipe: fragments/benchmarks}]"})
    assert everything.decontaminate.against["mmmu"].splits("mmmu") == {"mmmu": Split(pattern="*.parquet")}
    names = "ai2d chartqa docvqa exam mathvista mmbench_cn mmbench_en mmmu mmstar ocrbench scienceqa textvqa vqav2"
    assert sorted(everything.decontaminate.against) == names.split()


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"against": "benchmarks"}, r"against: Input should be a mapping"),
        ({"against": {"a": {"files": "x", "root_": "y"}}}, r"unknown key 'root_'; did you mean 'root'\?"),
        ({"against": {"a": {"files": "x"}}, "action": "dropp"}, r"action: .*'report' or 'drop'.*'dropp'"),
        ({"against": {"quiz": {"files": "x"}}}, "this name is taken"),
        ({"against": {"a": {}}}, r"against\.a\.files: is missing"),
        ({"against": {"a": {"split": "test"}}}, "root '.' is none; give `files`"),
        ({"against": {"a": {"files": {"te.st": "x"}}}}, "'te.st' is no name"),
        ({"against": {"a": {"files": "x", "kind": "obelics"}}}, "has to carry its images"),
        ({"against": {"a": {"files": "x", "options": {"choises": "c"}}}}, r"did you mean 'choices'\?"),
    ],
)
def test_a_mistake_in_the_block_is_named(data, block, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(str(recipe(data, decontaminate=block)))


def test_a_benchmark_may_have_any_row_shape_with_images_and_those_in_files_lie_below_its_root(data, tmp_path):
    (folder := tmp_path / "talks").mkdir()
    (folder / "1.png").write_bytes(shown(1))
    json_array(folder / "talks.json", [{"image": "1.png", "conversations": talk("<image>\nWhich?", "This")}])
    talks = {"kind": "llava", "root": str(folder), "files": "*.json"}
    path = recipe(data, decontaminate={"against": {"talks": talks}})
    assert vlmill("build", path, "--out", tmp_path / "run", "--workers", 0, "--until", "benchmarks") == 0
    counts = json.loads((tmp_path / "run/steps/benchmarks/index/manifest.json").read_bytes())["counts"]
    assert {name: line["kept"] for name, line in counts.items()} == {"benchmark_items": 1, "benchmark_pictures": 1}


def test_what_of_a_benchmark_could_not_be_read_is_said_for_nothing_was_held_against_it(data, built, tmp_path, capsys):
    """A benchmark that names its pictures by paths would else come out clean of them."""
    with (tmp_path / "paths.tsv").open("w", newline="") as file:
        lines = [["question", "answer", "image"], [LONG, "A", "pictures/1.png"], [SHORT, "B", "2.png"], ["", "", ""]]
        lines.append(["And this one?", "C", base64.b64encode(shown(7)).decode()])  # check asks for one that can be read
        csv.writer(file, delimiter="\t").writerows(lines)
    paths = {"root": str(tmp_path), "files": "paths.tsv"}
    root = shutil.copytree(built, tmp_path / "run")
    path = recipe(data, decontaminate={"against": {"paths": paths}})
    assert vlmill("build", path, "--out", root, "--workers", 0, "--accept-changes", "--until", "survey") == 0
    assert vlmill("build", path, "--out", root, "--workers", 0) == 0
    warned = (
        "paths: 1 of 4 rows could not be read (empty_row 1), and nothing was compared with them",
        "paths: 2 of 3 images could not be read (undecodable 2), and nothing was compared with them",
    )
    told = capsys.readouterr().out
    assert all(line in told for line in warned)
    assert reported(root, capsys)["benchmarks"]["paths"]["unread"] == {
        "rows": {"came": 4, "lost": {"empty_row": 1}},
        "images": {"came": 3, "lost": {"undecodable": 2}},
    }
    assert vlmill("report", root) == 0
    told = capsys.readouterr().out
    assert all(line in told for line in warned)


def test_a_run_without_the_block_says_how_to_add_one(data, tmp_path, capsys):
    root = tmp_path / "run"
    path = recipe(data, decontaminate=None)
    assert vlmill("build", path, "--out", root, "--workers", 0, "--until", "survey") == 0
    assert vlmill("report", root, "--section", "contamination") == 1
    assert "add a decontaminate block" in capsys.readouterr().err


# -- the source


def rows_of(path, **options):
    source = SOURCES["evaluation"](**options)
    return list(source.rows(path, range(len(source.survey(path)))))


def test_an_evaluation_row_may_have_its_images_answers_and_choices_in_many_forms(tmp_path):
    data = shown(1)
    records = [
        {
            "q": "Which <image 1>?",
            "a": "B",
            "c": "['One', \"Two's\"]",
            "x": [base64.b64encode(data).decode()],
            "y": None,
        },
        {"q": "Read it", "a": [{"answer": "7"}, {"answer": "seven"}, {"answer": "7"}], "c": None, "x": [], "y": None},
        {"q": "Place", "a": 0, "c": ["first", "second"], "x": "images/1.png", "y": base64.b64encode(data).decode()},
        {"q": None, "a": None, "c": None, "x": None, "y": None},
        {"q": {"not": "text"}, "a": None, "c": None, "x": None, "y": None},
    ]
    path = tmp_path / "set.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + "no row\n")
    found = rows_of(path, question="q", answers="a", choices="c", images=("x", "y"))
    said = [[(node.role, node.text) for page in row.pages for node in page.nodes if node.text] for row in found]
    assert said[0] == [("user", "Which  ?"), ("user", "One\nTwo's"), ("assistant", "Two's")]
    assert said[1] == [("user", "Read it"), ("assistant", "7"), ("assistant", "seven")]
    assert said[2][-1] == ("assistant", "first")
    assert [picture.data for picture in found[0].pages[0].pictures] == [data]
    assert [(picture.data, picture.reason) for picture in found[2].pages[0].pictures] == [
        (None, Reason.UNDECODABLE),
        (data, None),
    ]
    assert [row.failed[0][0] for row in found[3:]] == [Reason.EMPTY_ROW, Reason.BAD_ROW, Reason.BAD_ROW]


def test_an_empty_choice_of_an_evaluation_row_keeps_its_letter_and_number(tmp_path):
    path = tmp_path / "set.jsonl"
    rows = [{"q": "Which?", "a": right, "c": ["cat", "", "crow", "dog"], "x": ""} for right in ("C", 2)]
    columns = [{"q": "Which?", "a": "C", "c": "cat", "d": None, "e": "crow", "f": "dog", "x": ""}]
    for records, choices in ((rows, "c"), (columns, ("c", "d", "e", "f"))):
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        for row in rows_of(path, question="q", answers="a", choices=choices, images="x"):
            assert [node.text for node in row.pages[0].nodes] == ["Which?", "cat\ncrow\ndog", "crow"]


def test_a_missing_column_is_named(tmp_path):
    (tmp_path / "set.tsv").write_text("question\tanswer\nWhy?\tSo\n")
    with pytest.raises(SourceError, match="column 'image' is missing; it has question, answer"):
        rows_of(tmp_path / "set.tsv")
    (tmp_path / "set.txt").write_text("question\tanswer\nWhy?\tSo\n")
    with pytest.raises(SourceError, match=r"set\.txt: expected a JSON array"):
        rows_of(tmp_path / "set.txt")


# -- words and pictures


@given(st.text())
def test_words_do_not_change_with_case_punctuation_and_space(text):
    assert split_words(f" {text} !") == split_words(text)
    assert split_words("(Left, RIGHT?) " + text) == ["left", "right", *split_words(text)]
    assert split_words(" ".join(split_words(text))) == split_words(text)


@given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.integers(1, 3), min_size=RUN, max_size=12))
def test_a_run_is_found_wherever_its_words_stand(before, sequence):
    whole = np.array([*before, *sequence], np.uint32)
    starts, hashes = find_runs(whole)
    known = [start for start in range(max(0, whole.size - RUN + 1)) if (whole[start : start + RUN] > 0).all()]
    assert starts.tolist() == known
    wanted = np.array(sequence, np.uint32)
    assert set(find_runs(wanted)[1].tolist()) <= set(hashes.tolist())
    assert len(before) in find_sequence(wanted, whole)


def test_a_character_of_a_script_without_spaces_is_a_word():
    assert split_words("这是iPhone 15。") == ["这", "是", "iphone", "15"]
    assert number_words(["Is it?"], {"it": 1}).tolist() == [0, 1]


def pictures(*images):
    return collect_pictures([compute_image_stats(0, encoded(image)) for image in images])


def seen_in(gallery, change, **options):
    """What changed pictures show of a gallery: (seed of the training picture, row of the gallery)."""
    return {
        (one, other) for one, other, _ in gallery.alike(pictures(*map(change, map(drawing, range(3)))), 0.97, **options)
    }


@pytest.fixture(scope="module")
def gallery():
    return make_gallery(pictures(*map(drawing, range(3))))


FRAMES = [bordered, bordered_twice, padded, captioned, marked]
TONES = [recompressed, halved, cropped, cropped_more, cut, grey, saturated, paled]


@pytest.mark.parametrize("change", [*FRAMES, *TONES])
def test_a_copy_shows_the_picture_of_a_benchmark_whichever_of_the_two_was_changed(change, gallery):
    assert seen_in(gallery, change) == {(0, 0), (1, 1), (2, 2)}
    changed = make_gallery(pictures(*map(change, map(drawing, range(3)))))
    assert seen_in(changed, lambda image: image) == {(0, 0), (1, 1), (2, 2)}


@pytest.mark.parametrize("change", [another_patch, tinted, ImageOps.mirror])
def test_another_patch_colour_or_direction_is_another_picture(change, gallery):
    assert seen_in(gallery, change) == set()


def test_a_mirrored_picture_is_the_same_where_that_is_asked_for(gallery):
    assert seen_in(gallery, ImageOps.mirror, mirror=True) == {(0, 0), (1, 1), (2, 2)}
    assert seen_in(gallery, tinted, mirror=True) == set()
