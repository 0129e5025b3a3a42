"""A custom filter: from a file on the command line to verdicts, the lock, the key and the funnel."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers.small import vlmill, write_recipe
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.keys import make_key
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import WHOLE_SAMPLE, Node, Sample, SampleId, Verdict
from vlmill.pipeline.core.step import Count
from vlmill.pipeline.filters import CustomFilter, FilterStep, Undecided
from vlmill.pipeline.filters import custom as custom_filters
from vlmill.pipeline.recipe.load import load_recipe
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.pipeline.reports.funnel import read_funnel
from vlmill.pipeline.reports.trace import trace_sample
from vlmill.pipeline.reports.verify import verify_run

FILTER = """
from dataclasses import dataclass
from vlmill.pipeline.filters import Drop

@dataclass(frozen=True)
class Short:
    name = "short"
    least: int = 5

    def decide(self, samples, image_stats):
        for row, sample in samples:
            for index, node in enumerate(sample.nodes):
                if node.text is not None and len(node.text) < self.least:
                    yield Drop(row, index, len(node.text))
"""


def own(code=FILTER, name="short", **settings):
    return CustomFilter(name, settings, custom_filters.hash_code(code), code, "mine.py")


def samples(*texts):
    return list(
        enumerate(Sample(SampleId("web", "a", row), (Node("text", text=text),)) for row, text in enumerate(texts))
    )


# -- what it says ------------------------------------------------------------------------------------------------------


def test_what_it_drops_has_its_name_as_the_reason():
    (verdict,) = own().decide(samples("long enough", "no"), [])
    assert verdict == Verdict(1, 0, "short", Reason("filter:short"), 2.0)


def test_a_filter_without_fields_has_no_settings_and_the_refusal_says_what_is_one():
    with pytest.raises(RecipeError, match="unknown key 'least'; allowed: none; a setting is a field with a type"):
        own(FILTER.replace("least: int = 5", "least = 5"), least=2)


def test_its_fields_are_its_settings_and_others_are_refused():
    assert list(own(least=2).decide(samples("no"), [])) == []
    with pytest.raises(RecipeError, match=r"filters.short: unknown key 'leest'; did you mean 'least'\?"):
        own(leest=2)
    with pytest.raises(RecipeError, match="filters.short.least: .*not 'many'"):
        own(least="many")


def test_reasons_of_filters_are_a_family_beside_the_closed_list():
    reason = Reason("filter:short")
    assert reason not in list(Reason)
    assert not reason.failed
    assert Reason("filter:short") is reason
    assert pickle.loads(pickle.dumps(reason)) is reason
    count = Count()
    count.lose(reason, 3)
    assert Count.from_json(json.loads(json.dumps(count.to_json()))) == count
    for name in ("filter:", "filter:Short", "filter:a b", "other:short"):
        with pytest.raises(ValueError, match="is not a valid Reason"):
            Reason(name)


def test_an_edit_of_the_code_or_of_a_setting_is_another_key_and_another_file_name_is_not():
    def key(filter_):
        return make_key(FilterStep(filter_), {"samples.parquet": "0"})

    assert key(own()) == key(own())
    assert key(own()) != key(own(FILTER + "# looked at\n"))
    assert key(own()) != key(own(least=6))
    moved = CustomFilter("short", {}, custom_filters.hash_code(FILTER), FILTER, "renamed.py")
    assert key(moved) == key(own())


def test_the_step_works_in_a_process_that_never_saw_the_file(tmp_path):
    (tmp_path / "step.pickle").write_bytes(pickle.dumps((FilterStep(own()), samples("no"))))
    script = (
        "import pickle, sys; step, samples = pickle.load(open(sys.argv[1], 'rb')); "
        "print(list(step.filter.decide(samples, []))[0].reason)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "step.pickle"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "filter:short"


# -- what is said of mistakes ------------------------------------------------------------------------------------------


FACTS = """from dataclasses import dataclass
@dataclass(frozen=True)
class Seeing:
    name = "seeing"
    image_stats = {}
    def decide(self, samples, image_stats):
        return []
"""


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1\nif x\n    pass\n", r"mine.py, line 2: expected ':'"),
        (
            "import no_such_module\n",
            r"mine.py, line 1: ModuleNotFoundError: No module named 'no_such_module'. .* alone travels",
        ),
        ("x = 1\n", r"mine.py: there is no filter in it. A filter is a frozen dataclass"),
        (FILTER.replace('name = "short"', "pass"), r"the name of filter Short is None"),
        (
            FILTER.replace('"short"', '"Too Short"'),
            r"the name of filter Short is 'Too Short'; give it .* of small letters",
        ),
        (
            FILTER.replace("(frozen=True)", ""),
            r"filter Short is no frozen dataclass; put @dataclass\(frozen=True\) above it",
        ),
        ("raise SystemExit(3)", "mine.py, line 1: SystemExit: 3"),
        (FACTS.format("'width'"), r"filter Seeing has image_stats = 'width'; give it a tuple"),
        (FACTS.format("('widht',)"), r"filter Seeing asks for the fact 'widht'; did you mean 'width'\?"),
    ],
)
def test_a_file_that_holds_no_filter_says_why_and_where(code, message):
    with pytest.raises(RecipeError, match=message):
        custom_filters.find_filter_classes("mine.py", code)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "yield 1 / 0",
            r"filter 'short' \(mine.py, line 8\) failed on sample web/a#1: ZeroDivisionError: division by zero",
        ),
        ("yield row", r"failed on sample web/a#1: TypeError: it yields 1, not Drop\(row, node, score\) or Undecided"),
        (
            "yield Drop(row, 7)",
            r"Drop\(sample=1, node=7, score=0.0\) is about no node of the samples that it was given",
        ),
        ("raise SystemExit(3)", r"filter 'short' \(mine.py, line 8\) failed on sample web/a#1: SystemExit: 3"),
        ("yield Drop(99, 0)", r"Drop\(sample=99, node=0, score=0.0\) is about no node"),
    ],
)
def test_a_filter_that_goes_wrong_is_named_with_its_line_and_the_sample(body, message):
    head = (
        "from dataclasses import dataclass\nfrom vlmill.pipeline.filters import Drop\n@dataclass(frozen=True)\nclass "
        "Short:\n    name = 'short'"
    )
    code = (
        f"{head}\n    def decide(self, samples, image_stats):\n        for row, sample in samples:\n            if "
        f"row == 1: {body}\n"
    )
    with pytest.raises(RecipeError, match=message):
        list(own(code).decide(samples("a", "b"), []))


def test_a_table_that_is_damaged_is_not_the_fault_of_the_filter():
    def coming():
        yield from samples("a")
        raise StoreError("samples.parquet cannot be read")

    with pytest.raises(StoreError, match=r"^samples\.parquet cannot be read$"):
        list(own(FILTER).decide(coming(), []))


def test_a_filter_that_does_not_begin_is_named_too():
    code = FACTS.format("()").replace("return []", "return None")
    with pytest.raises(RecipeError, match=r"filter 'seeing' \(mine.py\) failed before its first sample: TypeError"):
        list(own(code, "seeing").decide(samples("a"), []))


def test_doubts_and_drops_of_whole_samples_are_findings_too():
    code = FILTER.replace(
        "from vlmill.pipeline.filters import Drop", "from vlmill.pipeline.filters import Undecided, Drop"
    ).replace(
        "            for index",
        "            yield Undecided(row, -1)\n            yield Drop(row)\n            for index",
    )
    doubt, verdict, _ = own(code).decide(samples("no"), [])
    assert doubt == Undecided(0, WHOLE_SAMPLE)
    assert (verdict.node, verdict.filter) == (WHOLE_SAMPLE, "short")


# -- in a recipe -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    write_recipe(folder, stages=[])
    (folder / "mine.py").write_text(FILTER.replace("least: int = 5", "least: int = 8"))
    return folder


def loaded(folder, *files, **sets):
    codes = [(path.name, custom_filters.read_code(path)) for path in files]
    return load_recipe(str(folder / "recipe.yaml"), sets=sets, filters=codes)[0]


def test_it_is_asked_last_with_its_defaults_or_where_the_recipe_names_it(folder):
    assert [filter_.name for filter_ in loaded(folder, folder / "mine.py").filters] == [
        "language",
        "shape",
        "short",
    ]
    (named := folder / "named.yaml").write_text(
        yaml.safe_dump(
            yaml.safe_load((folder / "recipe.yaml").read_text())
            | {"filters": [{"short": {"least": 9}}, {"shape": None}]}
        )
    )
    recipe = load_recipe(str(named), filters=[("mine.py", FILTER)])[0]
    assert [filter_.name for filter_ in recipe.filters] == ["short", "shape"]
    assert recipe.filters[0].settings == {"least": 9}
    with pytest.raises(RecipeError, match="'short' is unknown; .*A custom filter comes with --filter FILE"):
        load_recipe(str(named))


def test_settings_of_its_own_are_set_like_all_others(folder):
    recipe = load_recipe(str(folder / "recipe.yaml"), sets={"short.least": "3"}, filters=[("mine.py", FILTER)])[0]
    assert recipe.filters[-1].settings == {"least": 3}


@pytest.mark.parametrize("name", ["language", "signature", "outcomes"])
def test_a_name_that_is_taken_is_refused(folder, name):
    with pytest.raises(RecipeError, match=f"mine.py: the name '{name}' is taken: .* has it; choose another"):
        load_recipe(str(folder / "recipe.yaml"), filters=[("mine.py", FILTER.replace('"short"', f'"{name}"'))])


def test_two_filters_of_one_name_and_two_files_of_one_name_are_refused(folder):
    with pytest.raises(RecipeError, match="the name 'short' is taken: a filter of mine.py has it"):
        load_recipe(str(folder / "recipe.yaml"), filters=[("mine.py", FILTER), ("other.py", FILTER)])
    with pytest.raises(RecipeError, match="a file of that name is already among"):
        load_recipe(str(folder / "recipe.yaml"), filters=[("mine.py", FILTER), ("mine.py", FILTER)])


def test_a_missing_file_is_named(folder, capsys):
    assert vlmill("build", folder / "recipe.yaml", "--out", folder / "none", "--filter", folder / "gone.py") == 1
    assert "gone.py: there is no such file" in " ".join(capsys.readouterr().err.split())


def test_a_build_with_it_from_the_lock_to_the_funnel(folder, capsys):
    nothing = ("--set", "sources.quiz.expect.kept=0")  # it drops every answer there
    root, build = folder / "run", ("build", folder / "recipe.yaml", "--out", folder / "run", "--workers", 0, *nothing)
    assert vlmill(*build, "--filter", folder / "mine.py") == 0
    code = (folder / "mine.py").read_text()
    assert yaml.safe_load((root / "recipe.lock.yaml").read_text())["custom_filters"] == {
        "mine.py": {"sha256": custom_filters.hash_code(code), "code": code}
    }
    assert read_funnel(root)["quiz"]["nodes"]["dropped"]["filter:short"] == 8 * 2  # both answers of each row
    assert list(verify_run(root)) == []
    traced = trace_sample(root, "quiz/quiz.parquet#0")  # from the lock alone
    assert {(verdict.filter, verdict.reason) for verdict in traced.verdicts} == {("short", Reason("filter:short"))}
    assert read_locked_recipe(root).filters[-1].sha256 == custom_filters.hash_code(code)

    files = {path: path.stat().st_mtime_ns for path in (root / "steps").rglob("*.parquet")}
    (folder / "mine.py").write_text(code.replace("int = 8", "int = 3"))
    capsys.readouterr()
    assert vlmill(*build, "--filter", folder / "mine.py") == 1
    assert "custom_filters.mine.py: 'code with sha256" in capsys.readouterr().err
    assert vlmill(*build, "--filter", folder / "mine.py", "--accept-changes") == 0
    assert "filter:short" not in str(read_funnel(root)["quiz"])
    touched = {
        path.parent.name for path in (root / "steps").rglob("*.parquet") if files.get(path) != path.stat().st_mtime_ns
    }
    assert touched == {"short", "resolve"}


# -- the examples that ship
# ----------------------------------------------------------------------------------------------


def example(name, **settings):
    code = custom_filters.read_code(Path(__file__).parents[2] / "examples" / "filters" / f"{name}.py")
    return CustomFilter(name, settings, custom_filters.hash_code(code), code, f"{name}.py")


def dropped(filter_, *texts):
    return [finding.sample for finding in filter_.decide(samples(*texts), [])]


def test_the_example_for_personal_data_finds_addresses_and_numbers_of_people_and_not_those_of_examples():
    people = [
        "write to ada.lovelace+ships@harbour.co.uk.",
        "Tel.: (030) 123 45 67",
        "call +44 20 7946 0018 now",
        "seen from 81.2.69.142 at night",
        "Schreiben Sie an jörg@häfen.de",
    ]
    assert dropped(example("personal_data"), *people) == [0, 1, 2, 3, 4]
    others = [
        "name@example.org, x@host.test",
        "section 6.5.4.4 of version 1.2.3.4",
        "10.20.30.40 and 192.168.10.10",
        "+1 202 555 0123",
        "2023-11-04 12:30:45, 1234567890, 640 x 480",
        "a @ b, @handle, user@localhost",
    ]
    assert dropped(example("personal_data"), *others) == []
    assert dropped(example("personal_data", emails=False, phones=False), *people) == [3]


def test_the_example_for_ratings_drops_by_them_and_marks_what_has_none():
    rated = [
        (row, Sample(SampleId("pairs", "a", row), (Node("text", text="x"),), signals=signals))
        for row, signals in enumerate([{"punsafe": 0.9}, {"punsafe": 0.2}, {}])
    ]
    verdict, doubt = example("nsfw").decide(rated, [])
    assert (verdict.sample, verdict.node, verdict.reason) == (0, WHOLE_SAMPLE, "filter:nsfw")
    assert doubt == Undecided(2, WHOLE_SAMPLE)
    low, doubt = example("ratings", signal="punsafe", least=0.5).decide(rated, [])
    assert (low.sample, low.node, low.reason) == (1, WHOLE_SAMPLE, "filter:ratings")
    assert doubt == Undecided(2, WHOLE_SAMPLE)


def test_the_example_for_capitals_leaves_scripts_without_them_alone():
    assert dropped(
        example("shouting"),
        "BUY YOUR HARBOUR TICKETS HERE",
        "Buy your tickets",
        "港口在冬天的大部分时间里都结了冰" * 2,
        "NASA",
    ) == [0]
