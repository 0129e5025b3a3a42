"""Disclosure: figures that are counted again from the shards themselves, documents that name them, and takedowns."""

import json
import re
import shutil
import tarfile

import mlcroissant
import polars as pl
import pytest
import yaml

import vlmill
from tests.helpers.small import RECIPE, write_recipe
from tests.helpers.small import vlmill as command
from vlmill.mixtures.disclosure.figures import get_figure, read_period
from vlmill.mixtures.disclosure.markdown import OPEN
from vlmill.pipeline.core.errors import StoreError

DESCRIBED = {
    **RECIPE["sources"],
    "web": {**RECIPE["sources"]["web"], "homepage": "https://example.org/web", "citation": "arXiv:2306.16527"},
}
CITED = re.compile(r"([\w,.-]+) \[`([^`]+)`\]")
DOCUMENTS = ("eu_public_summary.md", "california_ab_2013.md")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("input files"), sources=DESCRIBED)


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("disclosed")
    assert command("build", recipe, "--out", folder / "run", "--workers", 0) == 0
    found = vlmill.open_run(folder / "run")
    found.disclose()
    return found


def read_shards(root, source):
    """The samples in the tars of a source, as a trainer reads them."""
    for path in sorted((root / "shards" / source).glob("*/*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    yield json.load(tar.extractfile(member))


def read_figures(run):
    return json.loads((run.folder / "disclosure" / "figures.json").read_text())


def test_figures_are_what_the_shards_hold(run):
    figures = read_figures(run)
    for source in run.sources:
        samples = list(read_shards(run.folder, source))
        texts = [node["text"] for sample in samples for node in sample["nodes"] if node["kind"] == "text"]
        shown = [node for sample in samples for node in sample["nodes"] if node["kind"] == "image"]
        found = figures["sources"][source]
        assert found["samples"] == len(samples) > 0
        assert (found["texts"], found["characters"]) == (len(texts), sum(map(len, texts)))
        assert found["images"] == len(shown)
        assert found["licences"] == {"CC0-1.0": len(samples)}
        assert 0.99 < sum(found["languages"].values()) < 1.01
        pictures = run.image_stats(source).select("sha256").collect()["sha256"]
        assert found["pictures"] <= pictures.n_unique()
    assert figures["total"]["samples"] == sum(one["samples"] for one in figures["sources"].values())
    rows = run.funnel().filter(level="rows").group_by("source").agg(pl.col("count").sum())
    assert {name: one["rows"] for name, one in figures["sources"].items()} == dict(
        rows.select("source", "count").rows()
    )


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_figure_of_a_document_is_the_one_of_its_name(run, name):
    text, figures = (run.folder / "disclosure" / name).read_text(), read_figures(run)
    cited = CITED.findall(text)
    assert len(cited) > 10
    for value, figure in cited:
        found = get_figure(figures, figure)
        assert value == (f"{found:,}" if isinstance(found, int) else str(found)), figure
    assert OPEN in text


def test_a_figure_is_computed_again_by_its_command(run, capsys):
    assert command("disclose", run.folder, "--figure", "sources.web.samples") == 0
    assert int(capsys.readouterr().out) == read_figures(run)["sources"]["web"]["samples"]
    with pytest.raises(StoreError, match=r"figure 'sample': there is none; did you mean 'samples'"):
        run.disclosure_figure("sources.web.sample")


def test_croissant_is_valid_and_reads_the_samples_with_their_licences(run):
    found = mlcroissant.Dataset(run.folder / "croissant.json")
    assert not found.metadata.ctx.issues.errors
    lineage = json.loads((run.folder / "croissant.json").read_text())["prov:wasDerivedFrom"]
    assert {one["name"]: one["license"] for one in lineage} == dict.fromkeys(run.sources, "CC0-1.0")
    (name,) = (one.id for one in found.metadata.record_sets if one.id.startswith("web-"))
    rows = list(found.records(name))
    assert len(rows) == read_figures(run)["sources"]["web"]["samples"]
    assert {row[f"{name}/licence"] for row in rows} == {b"CC0-1.0"}


def test_a_takedown_changes_what_is_disclosed(run, tmp_path):
    changed = vlmill.open_run(shutil.copytree(run.folder, tmp_path / "run"))
    sample = next(read_shards(run.folder, "web"))["id"]
    changed.takedown(ids=[sample], workers=0)
    assert not (changed.folder / "croissant.json").exists()
    assert not list((changed.folder / "disclosure").iterdir())
    changed.disclose()
    before, after = read_figures(run), read_figures(changed)
    assert after["sources"]["web"]["samples"] == before["sources"]["web"]["samples"] - 1
    gone = changed.funnel().filter(source="web", level="samples", reason="taken_down")["count"].item()
    assert after["sources"]["web"]["lost"]["samples.taken_down"] == gone  # with the copy that dedupe had dropped
    text = (changed.folder / "disclosure" / "eu_public_summary.md").read_text()
    assert f"| web | samples.taken_down | {gone} [`sources.web.lost.samples.taken_down`] |" in text
    rules = yaml.safe_load((changed.folder / "takedowns.yaml").read_text())
    said = f"takedowns that the run obeys: {sum(len(rule) for name, rule in rules.items() if name != 'rows')}."
    assert said in (changed.folder / "disclosure" / "california_ab_2013.md").read_text()


def test_a_build_that_changes_nothing_keeps_the_documents_and_one_that_does_removes_them(recipe, run, tmp_path, capsys):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    written = {path: path.read_bytes() for path in (folder / "croissant.json", *(folder / "disclosure").iterdir())}
    build = ("build", recipe, "--out", folder, "--workers", 0)
    assert command(*build) == 0
    assert len(written) == 4
    assert {path: path.read_bytes() for path in written} == written
    licence = ("--set", "sources.web.licence=MIT")
    assert command(*build, *licence) == 1  # refused, so nothing changes
    assert {path: path.read_bytes() for path in written} == written
    capsys.readouterr()
    assert command(*build, *licence, "--accept-changes") == 0
    assert not any(path.exists() for path in written)
    assert "has changed since its disclosure" in re.sub(r"\s+", " ", capsys.readouterr().out)


def test_an_incomplete_run_discloses_nothing(tmp_path):
    recipe = write_recipe(tmp_path / "inputs")
    assert command("build", recipe, "--out", tmp_path / "run", "--workers", 0, "--until", "curate") == 0
    with pytest.raises(StoreError):
        vlmill.open_run(tmp_path / "run").disclose()
    assert not (tmp_path / "run" / "disclosure").exists()


def test_days_come_from_the_log_and_a_line_that_a_kill_cut_is_passed_over(tmp_path):
    assert read_period(tmp_path) == {"first": None, "last": None}
    (tmp_path / "logs").mkdir()
    lines = [json.dumps({"time": f"2026-0{month}-03T10:00:00Z", "event": "begin"}) for month in (3, 1, 2)]
    (tmp_path / "logs" / "events.jsonl").write_text("\n".join(lines) + '\n{"time": "2027')
    assert read_period(tmp_path) == {"first": "2026-01-03", "last": "2026-03-03"}
