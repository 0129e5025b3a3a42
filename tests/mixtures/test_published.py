"""Published mixtures: what papers claim, held against what their own numbers make."""

import io
import math

import pytest
import yaml
from rich.console import Console

from vlmill.mixtures.config import MixtureSettings
from vlmill.mixtures.published.catalogue import (
    compute_shares,
    describe_published,
    list_names,
    load_published,
    make_listing,
    make_published_tables,
)
from vlmill.mixtures.published.import_llava import count_rows as count_in
from vlmill.mixtures.published.import_llava import make_source_name, read_mixture, to_yaml
from vlmill.pipeline.core.errors import RecipeError

STAGES = [(name, stage) for name in list_names() for stage in load_published(name).stages]


def counted(name, stage, unit="samples"):
    return describe_published(load_published(name).stages[stage])["total"][unit]


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_percentages_follow_from_the_counts_but_where_they_are_known_not_to(name, stage):
    found = load_published(name).stages[stage]
    shares = compute_shares(found)
    wrong = {
        label
        for label, known in found.published.items()
        if known.percent is not None and abs(known.percent - shares[label]) > 0.05
    }
    assert wrong == set(found.disagree), f"counts make {shares}; what is off by over 0.05 stands in `disagree`"
    assert set(found.published) <= set(found.mixture.labels())


def test_the_cauldron_has_all_59_rows_and_one_that_disagrees_with_its_own_factor():
    stage = load_published("the_cauldron").stages["sft"]
    assert len(stage.published) == 59
    assert stage.published["localized_narratives"].percent == 4.56
    assert compute_shares(stage)["localized_narratives"] == pytest.approx(4.38, abs=0.005)
    assert sum(known.percent for known in stage.published.values()) == pytest.approx(99.98, abs=0.005)


def test_the_cauldron_adds_up_to_what_its_image_sets_were_counted_to():
    images = [known for known in load_published("the_cauldron").stages["sft"].published.values() if known.images]
    assert len(images) == 50
    assert sum(known.images for known in images) == 3_665_408
    assert sum(known.samples for known in images) == 30_344_030
    assert sum(known.supervised for known in images) == 462_118_359


@pytest.mark.parametrize(
    ("name", "stage", "samples", "claimed"),
    [
        ("llava_1_5", "sft", 664_000, 665_298),
        ("llava_next", "sft", 779_289, 738_590),
        ("llava_onevision", "mid", 1_211_000, 4_000_000),
        ("llava_onevision", "single_image", 2_621_993, 3_200_000),
        ("llava_onevision", "onevision", 1_866_651, 1_600_000),
        ("mantis_instruct", "card", 730_380, 721_000),
        ("prismatic", "llava-lvis4v-lrv", 2_462_194, 2_462_000),
    ],
)
def test_counts_and_claims_stand_side_by_side(name, stage, samples, claimed):
    assert counted(name, stage) == pytest.approx(samples, abs=0.5)
    assert load_published(name).stages[stage].claimed["samples"] == claimed


@pytest.mark.parametrize(
    ("stage", "entries", "uncounted"), [("mid", 8, 1), ("single_image", 90, 6), ("onevision", 82, 9)]
)
def test_llava_onevision_has_every_entry_of_its_files(stage, entries, uncounted):
    found = load_published("llava_onevision").stages[stage]
    assert len(found.mixture.labels()) == entries
    assert len(set(found.mixture.labels()) - set(found.published)) == uncounted


def test_strategies_of_llava_onevision_are_those_of_its_files():
    takes = [entry.take for entry in load_published("llava_onevision").stages["single_image"].mixture.resolved()]
    assert {take: takes.count(take) for take in set(takes)} == {
        "all": 73,
        "first:5%": 7,
        "first:1%": 4,
        "first:50%": 3,
        "first:10%": 2,
        "first:30%": 1,
    }


def test_the_language_files_of_llava_onevision_come_to_more_than_its_paper_says():
    stage = load_published("llava_onevision").stages["single_image"]
    planned = {source["name"]: source["planned"]["samples"] for source in describe_published(stage)["sources"]}
    language = sum(count for name, count in planned.items() if name.startswith(("Evol-Instruct", "magpie")))
    assert language == pytest.approx(492_895)
    assert 100 * language / stage.claimed["samples"] == pytest.approx(15.4, abs=0.01)  # published: 14.3


def test_idefics2_cuts_its_sources_to_their_own_lengths():
    lengths = [entry.sequence_length for entry in load_published("idefics2").stages["stage2"].mixture.resolved()]
    assert lengths == [None, 1536, 1024]


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_every_published_mixture_is_one_that_can_be_asked_for(name, stage):
    mixture = load_published(name).stages[stage].mixture
    assert isinstance(mixture, MixtureSettings)
    assert all(label.replace("-", "").replace("_", "").replace("@", "").isalnum() for label in mixture.labels())
    assert math.isfinite(counted(name, stage))


def test_a_mixture_that_was_not_published_is_refused_with_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'the_cauldron'"):
        load_published("cauldron")


def shown(*printed):
    console = Console(width=120, file=io.StringIO())
    console.print(*printed)
    return console.file.getvalue()


def test_the_row_of_the_cauldron_that_disagrees_is_shown_as_such():
    lines = shown(*make_published_tables(load_published("the_cauldron"))).splitlines()
    assert [line.split()[0] for line in lines if line.rstrip().endswith("disagrees")] == ["localized_narratives"]
    (line,) = [line for line in lines if line.startswith("localized_narratives")]
    assert line.split()[-4:] == ["4.56%", "4.38%", "-0.18", "disagrees"]


def test_what_was_claimed_stands_below_what_was_counted():
    lines = shown(*make_published_tables(load_published("llava_onevision"), "single_image"))
    assert "samples: counts make 2,621,993, claimed are 3,200,000" in lines
    assert "without a published count, and so without a share here: ureader_qa_sft, " in lines.replace("\n", " ")
    assert "llava_1_5" in shown(make_listing())


def test_a_stage_that_was_not_published_is_refused_with_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'onevision'"):
        list(make_published_tables(load_published("llava_onevision"), "one_vision"))


def as_released(stage):
    """The YAML of a stage of LLaVA-OneVision as its authors wrote such files, made of ours."""
    entries = [
        {"json_path": f"/data/llava/{entry.source}.json", "sampling_strategy": entry.take}
        for entry in load_published("llava_onevision").stages[stage].mixture.resolved()
    ]
    return yaml.safe_dump({"datasets": entries}, sort_keys=False)


@pytest.mark.parametrize("stage", ["mid", "single_image", "onevision"])
def test_what_import_makes_of_llava_onevision_is_what_ships(stage, tmp_path):
    (tmp_path / f"{stage}.yaml").write_text(as_released(stage))
    (tmp_path / "ours.yaml").write_text(to_yaml(read_mixture(tmp_path / f"{stage}.yaml", 32768)))
    imported, shipped = (
        load_published(str(tmp_path / "ours.yaml")).stages[stage],
        load_published("llava_onevision").stages[stage],
    )
    assert imported.mixture == shipped.mixture
    counted_by_others = {"ureader_tr_sft"}  # its number stands in the paper, not in its name
    assert imported.published == {
        label: known for label, known in shipped.published.items() if label not in counted_by_others
    }


@pytest.mark.parametrize(
    ("path", "name", "samples"),
    [
        ("MathV360K_GeoQA+_17172", "MathV360K_GeoQAplus_17172", 17_172),
        ("blip558k_stage1.5_finetune_w_prompt", "blip558k_stage1_5_finetune_w_prompt", 558_000),
        ("magpie_pro_qwen2_72b_st_300000_sp_token_fltd_299992", None, 299_992),
        ("Evol-Instruct-GPT4-Turbo-143K", None, 143_000),
        ("academic_source_30s_v1_all", None, None),
        ("0718_0_30_s_academic_mc_v0_1_all", None, None),
        ("ureader_qa_sft", None, None),
    ],
)
def test_a_file_name_gives_a_source_and_often_its_count(path, name, samples):
    assert make_source_name(path) == (name or path)
    assert count_in(make_source_name(path)) == samples


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "is no YAML"), ("datasets: [{json_path: a.json}]", "make it one of ours with: vlmill mixtures import")],
)
def test_a_file_that_is_no_published_mixture_is_refused_with_what_it_is(tmp_path, text, message):
    (tmp_path / "other.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_published(str(tmp_path / "other.yaml"))


def import_files(folder, *files):
    """The entries of an imported mixture of these files."""
    (folder / "some.yaml").write_text(yaml.safe_dump({"datasets": [{"json_path": file} for file in files]}))
    return read_mixture(folder / "some.yaml", 2048)["stages"]["some"]["mixture"]["entries"]


def test_files_of_one_name_in_other_folders_are_sources_of_their_own(tmp_path):
    found = import_files(tmp_path, "/data/ai2d/train.json", "/data/dvqa/train.json", "/data/k12.json")
    assert list(found) == ["ai2d_train", "dvqa_train", "k12"]
    found = import_files(tmp_path, "/a/x/train.json", "/b/x/train.json")
    assert list(found) == ["a_x_train", "b_x_train"]
    with pytest.raises(RecipeError, match=r"a b\.json and a_b\.json would be sources of one name, 'a_b'"):
        import_files(tmp_path, "a b.json", "a_b.json")


def test_an_imported_mixture_without_any_count_says_where_to_write_them(tmp_path):
    import_files(tmp_path, "ai2d.json", "dvqa.json")
    (tmp_path / "ours.yaml").write_text(to_yaml(read_mixture(tmp_path / "some.yaml", 2048)))
    with pytest.raises(RecipeError, match=r"none of ai2d, dvqa how many samples .* published: \{ai2d: \{samples: 1000"):
        compute_shares(load_published(str(tmp_path / "ours.yaml")).stages["some"])


def test_a_file_that_is_named_twice_becomes_two_entries(tmp_path):
    entries = [{"json_path": "a/x_500.json", "sampling_strategy": take} for take in ("first:10%", "end:20")]
    (tmp_path / "twice.yaml").write_text(yaml.safe_dump({"datasets": entries}))
    twice = read_mixture(tmp_path / "twice.yaml", 2048)["stages"]["twice"]["mixture"]["entries"]
    assert twice == [{"source": "x_500", "take": "first:10%"}, {"source": "x_500", "take": "end:20"}]
    (tmp_path / "ours.yaml").write_text(to_yaml(read_mixture(tmp_path / "twice.yaml", 2048)))
    assert compute_shares(load_published(str(tmp_path / "ours.yaml")).stages["twice"]) == pytest.approx(
        {"x_500": 500 / 7, "x_500@2": 200 / 7}
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "datasets: [{json_path: a.json, sampling_strategy: middle:3}]",
            r"datasets\[0\]: sampling_strategy 'middle:3'; allowed: all, first:N",
        ),
        ("datasets: [{path: a.json}]", r"datasets\[0\]: an entry names its file under json_path"),
        ("datasets: [{json_path: a.json, sampling_stratgy: all}]", "unknown key 'sampling_stratgy'; did you mean"),
        ("datasets: [{json_path: a.json, sampling_strategy: 'first:0%'}]", "take of 'a' is 'first:0%'; N is above 0"),
        ("datasets: [{json_path: ''}]", r"datasets\[0\]: json_path '' names no file"),
        ("sources: {}", "no list `datasets`"),
        ("a: [", "is no YAML"),
    ],
)
def test_a_file_of_another_form_is_refused_by_its_entry(tmp_path, text, message):
    (tmp_path / "other.yaml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_mixture(tmp_path / "other.yaml", 2048)
