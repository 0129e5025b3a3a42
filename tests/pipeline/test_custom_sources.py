"""A custom source: from a file on the command line to rows, the lock and the key; a run is read without its code."""

from __future__ import annotations

import json
import pickle
import re
import shlex

import pytest

from tests.helpers.small import vlmill, write_recipe
from tests.helpers.upstream import picture
from vlmill.pipeline.core.errors import BadFileError, RecipeError, SourceError
from vlmill.pipeline.core.keys import hash_value
from vlmill.pipeline.core.sample import read_rows, read_samples
from vlmill.pipeline.filters import custom as custom_filters
from vlmill.pipeline.recipe.custom_sources import CustomSource, find_source_classes, read_source_kinds
from vlmill.pipeline.recipe.load import load_readable, load_recipe
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.reports.refused import read_refused_rows
from vlmill.pipeline.reports.verify import verify_run
from vlmill.pipeline.steps.read import Read
from vlmill.pipeline.steps.row_sample import RowRange

SOURCE = """
from typing import ClassVar

from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.sources.base import Page, Picture, Source
from vlmill.pipeline.sources.formats.json_rows import JsonSource


@dataclass(frozen=True, config=STRICT)
class Delivery(JsonSource):
    kind: ClassVar[str] = "delivery"
    opens: ClassVar[bool] = True
    system: bool = True

    def keys(self):
        return (("talk",),)

    def reads(self):
        return ("talk", "media")

    def shows(self):
        return ("media",)

    def page(self, row):
        nodes = [Node("image", "user", image=0, required=True)]
        for said in row["talk"]["turns"]:
            spoken = "assistant" if said["by"] == "agent" else "user"
            nodes.append(Node("text", spoken, supervised=spoken == "assistant", text=said["said"]))
        return Page(tuple(nodes), (Picture(path=row["media"]["rel"]),))
"""


def make_source(code=SOURCE, **settings):
    return CustomSource("delivery", settings, custom_filters.hash_code(code), code, "delivery.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deliveries")
    recipe = write_recipe(
        folder, stages=[], sources={"shop": {"kind": "delivery", "files": "rows.jsonl", "licence": "CC0-1.0"}}
    )
    rows = [
        {
            "media": {"rel": f"{number}.png"},
            "talk": {
                "turns": [{"by": "client", "said": f"What is {number}?"}, {"by": "agent", "said": f"It is {number}."}]
            },
        }
        for number in range(4)
    ]
    rows[2]["talk"]["turns"][0].pop("by")
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for number in range(4):
        (folder / f"{number}.png").write_bytes(picture(number, (160, 120)))
    (folder / "delivery.py").write_text(SOURCE)
    assert vlmill("build", recipe, "--out", folder / "run", "--workers", 0, "--filter", folder / "delivery.py") == 0
    return folder


def test_a_build_reads_its_rows_and_says_where_its_code_broke(folder):
    (path,) = (folder / "run").glob("steps/shop/read/*.samples.parquet")
    found = [[node.text for node in sample.nodes] for sample in read_samples(path)]
    assert found == [[None, f"What is {n}?", f"It is {n}."] for n in (0, 1, 3)]
    (lost,) = read_refused_rows(folder / "run", read_locked_recipe(folder / "run"), "shop")
    assert (lost.id.row, str(lost.reason), lost.detail) == (2, "bad_row", "delivery.py:30: KeyError: 'by'")


def test_a_run_is_read_without_its_code_and_built_with_the_file_or_the_sha256(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    marker = tmp_path / "ran"
    code = f"open({str(marker)!r}, 'w').close()\n{SOURCE}"
    for line in ("status run", "report run", "verify run", "trace run shop/rows.jsonl#0"):
        assert vlmill(*shlex.split(line)) == 0, line
    recipe = read_locked_recipe(folder / "run")
    assert recipe.source("shop").opens
    assert recipe.source("shop").code is None
    with pytest.raises(RecipeError, match=r"sources.shop: rows of kind 'delivery' .* only if it is named"):
        recipe.source("shop").survey(folder / "rows.jsonl")
    assert list(verify_run(folder / "run")) == []
    build = ("build", "recipe.yaml", "--out", "run", "--workers", 0)
    capsys.readouterr()
    assert vlmill(*build) == 1
    digest = custom_filters.hash_code(SOURCE)
    assert f"--trust-code={digest}" in "".join(capsys.readouterr().err.split("\n"))
    assert vlmill(*build, "--trust-code", digest) == 0
    capsys.readouterr()
    assert vlmill("what-if", "recipe.yaml", "--out", "run", "--set", "shape.min_side=500") == 0
    printed = capsys.readouterr().out
    applies = "vlmill build recipe.yaml --out run --accept-changes --filter=delivery.py --set=shape.min_side=500"
    assert f"To apply it: {applies}" in printed
    (folder / "delivery.py").rename(folder / "elsewhere.py")
    assert vlmill("what-if", "recipe.yaml", "--out", "run", "--set", "shape.min_side=500") == 0
    assert applies.replace("--filter=delivery.py", f"--trust-code={digest}") in capsys.readouterr().out
    (folder / "elsewhere.py").rename(folder / "delivery.py")
    (folder / "other.py").write_text(code)
    assert vlmill(*build, "--filter", "other.py") == 1  # another file: the run is locked to the first
    assert vlmill("status", "run") == 0


def test_its_fields_are_its_options_and_others_are_refused():
    assert make_source(system=False)._made().system is False
    with pytest.raises(RecipeError, match=r"sources.options: unknown key 'sytem'; did you mean 'system'\?"):
        make_source(sytem=False)


def test_an_edit_of_the_code_or_an_option_is_another_key_and_the_name_of_the_file_is_not():
    same = CustomSource("delivery", {}, custom_filters.hash_code(SOURCE), None, "renamed.py", entry="shop", opens=True)
    assert hash_value(make_source()) == hash_value(same)
    assert len({hash_value(one) for one in (same, make_source(SOURCE + "\n"), make_source(system=True))}) == 3


def test_it_travels_to_a_worker(folder):
    sent = pickle.loads(pickle.dumps(make_source()))
    assert [row.row for row in sent.rows(folder / "rows.jsonl", [1, 3])] == [1, 3]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '= "delivery"',
            '= "deli" + "very"',
            'kind of source Delivery has to stand in its class as it is: kind: .* = "d',
        ),
        (
            "opens: ClassVar[bool] = True",
            "opens: ClassVar[bool] = not 0",
            r"say opens in its class as it is: opens: .* = True",
        ),
        ("opens: ", "isolated: ClassVar[bool] = True\n    opens: ", "source Delivery is isolated, which"),
        ("frozen=True", "frozen=False", "source Delivery is no frozen dataclass"),
        ("    kind: ", "    sort: ", 'source Delivery has no kind, .*: kind: ClassVar.str. = "delivery"'),
        ("def page", "def page(", "mine.py, line 27: "),
        *(
            (
                "(JsonSource):",
                f"(Source):\n    def {one}(self, *_):\n        return []\n",
                f"Delivery has no {other}: .*adding",
            )
            for one, other in (("survey", "rows"), ("rows", "survey"))
        ),
    ],
)
def test_a_class_that_does_not_keep_to_the_rules_is_named(old, new, message):
    assert set(find_source_classes("mine.py", SOURCE)) == {"delivery"}
    with pytest.raises(RecipeError, match=message):
        find_source_classes("mine.py", SOURCE.replace(old, new))


def test_kinds_are_read_without_running_the_file():
    assert read_source_kinds("import gone\n" + SOURCE) == {
        "delivery": {"fetches": False, "opens": True, "captions": False}
    }
    assert read_source_kinds("class (") == {}


def test_a_kind_that_is_taken_or_unknown_is_refused(folder):
    path = str(folder / "recipe.yaml")
    with pytest.raises(RecipeError, match="mine.py: the kind 'obelics' is taken: a source of ours has it"):
        load_recipe(path, filters=[("mine.py", SOURCE.replace('"delivery"', '"obelics"'))])
    with pytest.raises(RecipeError, match="the kind 'delivery' is taken: a source of a.py has it"):
        load_recipe(path, filters=[("a.py", SOURCE), ("b.py", SOURCE)])
    unknown = r"sources\.shop\.kind: 'delivery' is unknown; allowed: .*--filter FILE; docs/adding.md"
    with pytest.raises(RecipeError, match=unknown):
        load_recipe(path)
    (folder / "against.yaml").write_text(
        (folder / "recipe.yaml").read_text() + "decontaminate: {against: {quiz: {kind: delivery, files: a.jsonl}}}\n"
    )
    with pytest.raises(RecipeError, match=r"'delivery' is unknown; .* write its questions as rows of kind evaluation"):
        load_recipe(str(folder / "against.yaml"), filters=[("delivery.py", SOURCE)])
    faults = load_readable(path, sets={"seed": "x"}).faults  # beside what else is wrong
    assert len(faults) == 2
    (fault,) = load_readable(path, filters=[("delivery.py", "def (")]).faults  # not that its kind is unknown as well
    assert "delivery.py, line 1: " in fault


FILTER = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Long:
    name = "long"
    words: int = 3

    def decide(self, samples, image_stats):
        yield from ()
"""

SIGNAL = """
from dataclasses import dataclass


@dataclass(frozen=True)
class Ink:
    name = "ink"
    of = "pictures"

    def score(self, model, batch):
        return [0] * batch.size
"""


@pytest.mark.parametrize(
    ("named", "settings", "message"),
    [
        ({"delivery.py": SOURCE.replace("system: bool = True", "system: bool")}, {}, "options.system: is missing"),
        ({"delivery.py": SOURCE, "long.py": FILTER}, {"filters.long.words": "[x]"}, "filters.long.words: "),
        ({"delivery.py": SOURCE, "long.py": FILTER}, {"filters.long.wrods": "3"}, "filters.long: unknown key"),
        ({"delivery.py": SOURCE, "ink.py": SIGNAL}, {"signals": "{ink: {kind: ink}}"}, "ink.py has of = 'pictures'"),
        (
            {"delivery.py": SOURCE},
            {"signals": "{ink: {kind: ikn}}", "filters.threshold": "{any: {ink: {min: 3}}}"},
            "signals.ink.kind: 'ikn' is unknown",
        ),
    ],
)
def test_what_is_wrong_beside_named_code_is_said_alone(folder, tmp_path, named, settings, message, capsys):
    for name, code in named.items():
        (tmp_path / name).write_text(code)
    sets = [option for key, value in settings.items() for option in ("--set", f"{key}={value}")]
    filters = [option for name in named for option in ("--filter", tmp_path / name)]
    capsys.readouterr()
    for command in (("check",), ("build", "--out", tmp_path / "run", "--workers", 0)):
        assert vlmill(*command, folder / "recipe.yaml", *sets, *filters) == 1
        said = capsys.readouterr().err
        assert message in said
        assert "its code runs only if" not in said, (command, said)
        assert len(said.strip().splitlines()) == 1, said


def test_a_takedown_reads_again_by_its_code_and_other_workers_make_the_same_run(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    named = ("--filter", "delivery.py")
    for place, workers in (("alone", 0), ("shared", 2)):
        run = tmp_path / place
        assert vlmill("build", "recipe.yaml", "--out", run, "--workers", workers, *named) == 0
        assert vlmill("takedown", run, "--id", "shop/rows.jsonl#1") == 1  # its code is not named
        assert vlmill("takedown", run, "--id", "shop/rows.jsonl#1", "--workers", workers, *named) == 0
        assert vlmill("build", "recipe.yaml", "--out", run, "--workers", workers, *named) == 0
        assert list(verify_run(run)) == []
    capsys.readouterr()
    assert vlmill("trace", tmp_path / "shared", "shop/rows.jsonl#1") == 0
    assert "taken_down" in capsys.readouterr().out
    made = [
        {path.name: path.read_bytes() for path in sorted((tmp_path / place).glob("shards/**/*.tar"))}
        for place in ("alone", "shared")
    ]
    assert made[0] == made[1]
    assert made[0]
    assert not any(b"What is 1?" in data for data in made[0].values())


PAGE = """
from typing import ClassVar

from pydantic.dataclasses import dataclass

from vlmill.pipeline.core.config import STRICT
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import Node
from vlmill.pipeline.sources.base import Page, Picture, Source, SourceRow, UnreadableRow, read_pages


@dataclass(frozen=True, config=STRICT)
class Own(Source):
    kind: ClassVar[str] = "own"

    def survey(self, path):
        return [1, 1, 1]

    def rows(self, path, numbers):
        return read_pages(((number, number) for number in numbers if number < 3), self.page)

    def page(self, row):
        text = Node("text", text=f"row {row}")
        if row == 1:
            ...
        return Page((text,))
"""


SERIAL = "import itertools\n\nSERIAL = itertools.count()\n\n\n@dataclass"
"""Code whose state lives as long as the process."""

PAGES = "read_pages(((number, number) for number in numbers if number < 3), self.page)"


def read_own(tmp_path, old, new):
    """What Read leaves of three rows of a file of code in which something stands in another's place."""
    code = PAGE.replace(old, new)
    assert code != PAGE
    source = CustomSource("own", {}, custom_filters.hash_code(code), code, "own.py", entry="mine")
    counts = Read(source, "mine", (RowRange("a.bin", 0, len(source.survey(tmp_path / "a.bin"))),)).run(
        {"input-0": tmp_path / "a.bin"}, tmp_path
    )
    return counts["rows"].to_json(), list(read_rows(tmp_path / "refused.parquet"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("None", "the page is None, expected a Page"),
        ("[text]", "the page is list, expected a Page"),
        ("Page(text)", "the page.nodes is Node, expected a tuple"),
        ("Page(('a text',))", "nodes[0] is str, expected a Node"),
        ("Page((Node('text', text=5),))", "nodes[0].text is 5, expected a text or None"),
        ("Page((text, Node('text', text=None)))", "nodes[1].text is None, expected a text"),
        ("Page((Node('txt', text=''),))", "nodes[0].kind is 'txt'; allowed: text, image"),
        ("Page((Node('text', 'gpt', text=''),))", "nodes[0].role is 'gpt'; allowed: none, system, user, assistant"),
        ("Page((Node('image', image=1),))", "nodes[0].image is 1, expected the place of one of 0 pictures, "),
        ("Page((Node('image', image=-1),), (Picture(data=b''),))", "nodes[0].image is -1, expected the place of one "),
        ("Page((Node('image'),))", "nodes[0].image is None, expected the place of one of 0 pictures, "),
        ("Page((Node('text', text='', image=0),))", "nodes[0] has a text and an image; give each a node of its own"),
        ("Page((text,), url=None)", "the page.url is None, expected a text"),
        ("Page((text,), (Picture(),))", "pictures[0] has no url, data, path or reason; where there is none: "),
        (
            "Page((text,), (Picture(reason=Reason.EXACT_IMAGE),))",
            "pictures[0].reason is 'exact_image', which another step decides; say missing_file",
        ),
        ("Page((text,), (Picture(data='a'),))", "pictures[0].data is str, expected bytes or None"),
        ("Page((text,), (Picture(data=b'a', path='a'),))", "pictures[0] has data and path; give it one of them"),
        ("Page((text,), signals={'price': 'n/a'})", "signals['price'] is str, expected a number by its name"),
        ("Page((text,), signals={'price': -(10**400)})", "signals['price'] is a whole number that is too large"),
    ],
)
def test_what_is_no_page_loses_its_row_and_says_why(tmp_path, given, message):
    counts, (lost,) = read_own(tmp_path, "...", f"return {given}")
    assert counts == {"in": 3, "kept": 2, "dropped": {}, "failed": {"bad_row": 1}}
    assert (lost["row"], lost["detail"][: len(message)]) == (1, message)


@pytest.mark.parametrize(
    ("given", "detail"),
    [
        ("Page(())", "neither a text that is not blank nor an image"),
        ("Page((Node('text', text=' \\n'),))", "neither a text that is not blank nor an image"),
        ("Page((text, Node('text', 'assistant', supervised=True, text='')))", "its answers are blank"),
        ("Page((Node('image', image=0),), (Picture(data=b'a'),))", None),
        ("Page((Node('image', image=0),), (Picture(url='data:image/png;base64,YQ=='),))", None),
        ("Page((text, Node('text', 'assistant', text=''), Node('text', 'assistant', text='b')))", None),
    ],
)
def test_a_page_with_nothing_to_learn_is_an_empty_row(tmp_path, given, detail):
    counts, lost = read_own(tmp_path, "...", f"return {given}")
    assert counts["failed"] == ({"empty_row": 1} if detail else {})
    assert [row["detail"] for row in lost] == ([detail] if detail else [])


@pytest.mark.parametrize("given", ["None", "Page(())", "{'nodes': 1}"])
def test_a_row_without_a_page_is_shown_as_it_was_read(tmp_path, given):
    _, (lost,) = read_own(tmp_path, "...", f"return {given}")
    assert lost["excerpt"] == "1"


def test_pages_of_a_row_without_numbers_of_their_own_are_lost_but_one(tmp_path):
    one = "SourceRow(number, (Page((Node('text', text='a'),)),) * 2)"
    counts, lost = read_own(tmp_path, PAGES, f"({one} for number in numbers if number < 3)")
    assert counts["kept"] == 3
    assert {row["detail"] for row in lost} == {"two of its pages have the number -1, expected each its own, from 0"}


def test_ratings_that_are_not_known_are_none_and_numbers_of_any_kind_are(tmp_path):
    import_numpy = "return Page((text,), signals={'a': None, 'b': float('nan'), 'c': numpy.float32(2), 'd': 3})"
    counts, _ = read_own(tmp_path, "...", f"import numpy; {import_numpy}")
    assert counts["kept"] == 3
    rated = [dict(sample.signals) for sample in read_samples(tmp_path / "samples.parquet")]
    assert rated == [{}, {"c": 2.0, "d": 3.0}, {}]


@pytest.mark.parametrize("reason", ["'too_dear'", "Reason.EXACT_TEXT", "'taken_down'", "None"])
def test_a_reason_that_is_none_of_a_row_names_its_line_and_those_that_are(tmp_path, reason):
    _, (lost,) = read_own(tmp_path, "...", f"raise UnreadableRow('too dear', {reason})")
    assert lost["reason"] == "bad_row"
    name = reason.strip("'").replace("Reason.EXACT_TEXT", "exact_text")
    assert lost["detail"].startswith(f"own.py:25: '{name}' is no reason of a row; allowed: bad_row, empty_row, ")
    assert lost["detail"].endswith("its message is: too dear")


def test_a_reason_may_be_given_by_its_name(tmp_path):
    _, (known,) = read_own(tmp_path, "...", "raise UnreadableRow('too dear', 'empty_row')")
    assert (known["reason"], known["detail"]) == ("empty_row", "too dear")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "...",
            "raise OSError('gone')",
            r"line 25\) failed at row 1 of a.bin: OSError: gone. Where the row is at fault,",
        ),
        ("...", "raise SystemExit(3)", r"line 25\) failed at row 1 of a.bin: SystemExit: 3$"),
        ("...", "import absent", r"line 25\) failed at row 1 of a.bin: ModuleNotFoundError: .* has to be installed"),
        ("return read_pages(", "raise KeyError('x')\n        return (", r"line 20\) failed over a.bin: KeyError: 'x'$"),
        ("((number, number) for number", "(number for number", r"expected \(number, row\), as pick_items gives it$"),
        ("(number, number) for", "(number, 1 / (number - 2)) for", r"line 20\) failed at row 2 .*ZeroDivisionError: "),
        (
            PAGES,
            "([] for one in numbers)",
            "rows gives list",
        ),
        (
            PAGES,
            "(SourceRow(one, failed=((Reason.NEAR_TEXT, ''),)) for one in numbers if one < 3)",
            "rows gives 'near_text' as the reason of a lost row; allowed: bad_row, empty_row, ",
        ),
        (
            "return [1, 1, 1]",
            "return iter(int, 1)",
            r"\(own.py\) failed over .* survey gives callable_iterator, ",
        ),
        ("return [1, 1, 1]", "return [1, None]", "survey gives None for row 1, expected its bytes"),
        ("...", "return Page((text,), (Picture(path='a.png'),))", r"are files; say so in its class: opens: .* = True$"),
        (
            "...",
            "return Page((text,), (Picture(url='http://a.test/'),))",
            r"are addresses; .* class: fetches: .* = True$",
        ),
        ("return [1, 1, 1]", "raise ValueError", r"\(own.py, line 17\) failed over a.bin: ValueError$"),
    ],
)
def test_code_that_breaks_outside_a_row_is_named_with_its_line(tmp_path, old, new, message):
    with pytest.raises(SourceError, match=message) as caught:
        read_own(tmp_path, old, new)
    assert str(caught.value).startswith("source 'mine' of kind 'own' (own.py")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "reversed(numbers)",
            "expected row 0, found row 2: either the file .* the code of kind 'own' does not",
        ),
        ("[*numbers, 7]", "expected the end, found row 7"),
        ("numbers[:2]", "survey counts 3 rows or more, and rows gives none from row 2 on"),
        ("range(10**5)", "expected the end, found row 3"),
    ],
)
def test_rows_in_another_order_or_number_are_refused(tmp_path, given, message):
    with pytest.raises(SourceError, match=message):
        read_own(
            tmp_path,
            "in numbers if number < 3), self.page",
            f"in {given} if numbers[0] < 3), self.page",
        )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "return [1, 1, 1]",
            "return [1, 1]",
            r"of .*/a\.bin, survey counts 2 rows and rows gives 3: the others would be ",
        ),
        ("return [1, 1, 1]", "return []", r"survey counts 0 rows and rows gives 3: "),
        ("if number < 3", "if number < 10**9", r"survey counts 3 rows and rows gives at least 1,003: "),
        (
            "if number < 3",
            "if number < 2",
            r"survey counts 3 rows or more, and rows gives none from row 2 on: .*a\.bin",
        ),
    ],
)
def test_a_survey_that_counts_other_rows_than_there_are_is_refused_with_both_numbers(tmp_path, old, new, message):
    with pytest.raises(SourceError, match=message) as caught:
        read_own(tmp_path, old, new)
    assert "mine" in str(caught.value)


def test_what_lies_behind_the_last_row_may_be_damaged(tmp_path):
    raising = "(_ for _ in ()).throw(__import__('vlmill.pipeline.core.errors', fromlist=['x']).BadFileError('cut'))"
    counts, _ = read_own(tmp_path, PAGES, f"{PAGES} if numbers[0] < 3 else {raising}")
    assert counts["kept"] == 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'f"row {row}"',
            "str(__import__('random').random())",
            r"row 0 of .*a\.bin has other nodes when it is asked again",
        ),
        (
            'f"row {row}"',
            "str(__import__('time').perf_counter_ns())",
            "row 0 of .* has other nodes when it is asked again",
        ),
        (
            "return Page((text,))",
            "return Page((text,), signals={'n': next(SERIAL)})",
            "row 0 of .* has other signals when",
        ),
        ("enumerated", "enumerate(numbers)", "row 1 of .* has other nodes when it is asked from row 1 on"),
        (
            "if number < 3",
            "if number < 3 and next(SERIAL) % 4",
            "(rows gives 3 of .*, and asked again 2 of|row . of .* has)",
        ),
        (
            "return [1, 1, 1]",
            "return [next(SERIAL)] * 3",
            "survey gives 3 rows of .* bytes for .*, and asked again 3 rows of ",
        ),
        (
            "            ...",
            "            if next(SERIAL) % 2: raise UnreadableRow('no')",
            "row 1 of .* has other reasons when it is",
        ),
    ],
)
def test_rows_that_differ_when_they_are_asked_again_are_refused_before_a_build(
    tmp_path, monkeypatch, capsys, old, new, message
):
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path, stages=[], sources={"mine": {"kind": "own", "files": "a.bin", "licence": "CC0-1.0"}})
    (tmp_path / "a.bin").write_bytes(b"abc")
    code = PAGE.replace("(number, number) for number in numbers", "(number, at) for at, number in enumerate(numbers)")
    code = (code if old == "enumerated" else PAGE.replace(old, new)).replace("@dataclass", SERIAL, 1)
    (tmp_path / "own.py").write_text(code)
    for command in (("check",), ("build", "--out", "run", "--workers", 0)):
        assert vlmill(*command, "recipe.yaml", "--filter", "own.py") == 1
        said = " ".join(capsys.readouterr().err.split())
        assert re.search(f"source 'mine' of kind 'own' .own.py.: {message}", said), said
    assert not (tmp_path / "run" / "steps").exists()


def test_a_file_that_its_code_calls_bad_is_named(tmp_path):
    bad = "from vlmill.pipeline.core.errors import BadFileError; raise BadFileError('no zip file')"
    for old, new in (("return [1, 1, 1]", bad), ("return read_pages(", f"{bad}\n        return (")):
        with pytest.raises(BadFileError, match=r"^/.*/a\.bin: no zip file$"):
            read_own(tmp_path, old, new)


def test_what_breaks_is_said_once_by_check_and_in_full_by_preview(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path, stages=[], sources={"mine": {"kind": "own", "files": "a.bin", "licence": "CC0-1.0"}})
    (tmp_path / "a.bin").write_bytes(b"abc")
    (tmp_path / "own.py").write_text(PAGE.replace("if row == 1:\n            ...", "open('absent.txt')"))
    for command in ("check", "preview", "build"):
        assert vlmill(command, "recipe.yaml", "--filter", "own.py") == 1
        said = " ".join(capsys.readouterr().err.split())
        assert said.count("absent.txt") == 1, command
        assert "source 'mine' of kind 'own' (own.py, line 24) failed at row 0 of a.bin: FileNotFoundError" in said
        assert "--source" not in said


def test_a_build_that_ends_since_every_row_is_lost_quotes_the_first_cause(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path, stages=[], sources={"mine": {"kind": "own", "files": "a.bin", "licence": "CC0-1.0"}})
    (tmp_path / "a.bin").write_bytes(b"abc")
    (tmp_path / "own.py").write_text(PAGE.replace("if row == 1:\n            ...", "raise KeyError(row)"))
    assert vlmill("build", "recipe.yaml", "--out", "run", "--workers", 0, "--filter", "own.py") == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "--reason bad_row; the first is mine/a.bin#0: own.py:24: KeyError: 0" in said
