"""Published mixtures in recipes: mapped onto its sources they keep their shares, and what is not mapped is said."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vlmill.mixtures.build import read_stage_mixture
from vlmill.mixtures.published.catalogue import PublishedStage, compute_shares, list_names, load_published
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.recipe.load import compose_recipe
from vlmill.train.validate import validate_whole_recipe

STAGES = [(name, stage) for name in list_names() for stage in load_published(name).stages]
IDEFICS2 = {"published": "idefics2/stage2", "sources": {"obelics": "web", "pairs": "alt", "documents": "scans"}}


def write_recipe(folder, mixture, sources=("web", "alt", "scans"), **more):
    data = {
        "name": "a",
        "sources": {name: {"kind": "cauldron", "files": "x"} for name in sources},
        "policies": {"small": {"kind": "letterbox"}},
        "tokenizer": "t.json",
        "stages": [{"name": "one", "policy": "small", "mixture": mixture}],
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({**data, **more}, sort_keys=False))
    return str(path)


def read_mixture(path, **options):
    recipe = compose_recipe(path, **options).recipe
    return read_stage_mixture(recipe, recipe.stages[0])


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_a_mixture_mapped_onto_a_recipe_and_solved_has_the_published_shares(tmp_path, name, stage):
    published = load_published(name).stages[stage]
    ours = {f"my-{entry.source}" for entry in published.mixture.resolved()}
    use = {"published": f"{name}/{stage}", "sources": {"*": "my-*"}}
    mixture = read_mixture(write_recipe(tmp_path, use, sorted(ours)))
    assert [entry.source for entry in mixture.resolved()] == [f"my-{e.source}" for e in published.mixture.resolved()]
    known = {f"my-{label}": counts for label, counts in published.published.items()}
    shares = compute_shares(PublishedStage(mixture, known))
    assert shares == pytest.approx({f"my-{label}": share for label, share in compute_shares(published).items()})


def test_settings_of_the_mixture_come_along_and_are_replaced_or_added_to_by_name(tmp_path):
    use = {**IDEFICS2, "replace": {"sequence_length": 1600, "entries.scans.share": 10}, "held_out": {"alt": 0.1}}
    mixture = read_mixture(write_recipe(tmp_path, use), sets={"stages.one.mixture.entries.web.share": "80"})
    assert (mixture.sequence_length, mixture.unit, mixture.held_out) == (1600, "samples", {"alt": 0.1})
    assert [(entry.source, entry.share, entry.sequence_length) for entry in mixture.resolved()] == [
        ("web", 80, None),
        ("alt", 35, 1536),
        ("scans", 10, 1024),
    ]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(without=st.sets(st.sampled_from(["obelics", "pairs", "documents"]), min_size=1, max_size=2))
def test_without_some_entries_the_others_keep_their_ratios_and_their_new_shares_are_said(tmp_path, without):
    sources = {name: ours for name, ours in IDEFICS2["sources"].items() if name not in without}
    use = {**IDEFICS2, "sources": sources, "without": sorted(without)}
    path = write_recipe(tmp_path, use)
    whole = {"obelics": 45, "pairs": 35, "documents": 20}
    shares = {entry.source: entry.share for entry in read_mixture(path).resolved()}
    assert shares == {ours: whole[name] for name, ours in sources.items()}
    note, *unused = compose_recipe(path).notes
    assert len(unused) == len(without), "a source that no mixture names is said not to be rendered"
    for name in sources:
        assert f"{name} {100 * whole[name] / sum(whole[kept] for kept in sources):.4g} %" in note
    assert all(name in note for name in without)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": {"obelics": "web"}}, r"without a source: pairs, documents; .*`without: \[pairs\]`"),
        (
            {"sources": {"obelics": "wob", "pairs": "alt", "documents": "scan"}},
            r"obelics -> wob, documents -> scan; did you mean 'web'\?",
        ),
        ({"sources": {**IDEFICS2["sources"], "pars": "alt"}}, r"no entry 'pars'; did you mean 'pairs'\?"),
        ({"without": ["pars"]}, r"no entry 'pars'"),
        ({"without": ["pairs"]}, "pairs is mapped in `sources` and left out in `without`"),
        ({"sources": {"*": "my-*"}, "without": ["obelics", "pairs", "documents"]}, "leaves no entry"),
        ({"published": "idefics4/stage2"}, r"no 'idefics4/stage2'; did you mean 'idefics[23]'\?"),
        ({"published": "idefics2/stage3"}, r"idefics2 has no stage 'stage3'; did you mean"),
        ({"published": "idefics2"}, "has no stage ''"),
        ({"published": "../idefics2/stage1"}, "there is no '../idefics2/stage1'"),
        ({"published": 3}, "published: "),
        ({"sequence_length": 1024}, r"sequence_length: 2048 \(.*idefics2\.yaml, line \d+\), and 1024 \(.*line \d+\)"),
        ({"replace": {"tokens": 5}}, r"replace tokens \(.*\): there is no 'tokens'"),
        (
            {"shares": {"web": 1}},
            r"shares stands beside `published`.* `entries: \{SOURCE: \{share: 1\}\}` \(",
        ),
        (
            {"published": "llava_1_5/sft", "sources": {"*": "web"}, "repeat": {"alt": 2}},
            r"\{SOURCE: \{repeat: 1",
        ),
        (
            {"entries": {"mine": {"repeat": 2}}},
            "or none has; 'web' has one, and 'mine' has none",
        ),
        ({"entries": 3}, r"mixture\.entries is 3; it names sources \(.*line \d+\)"),
        ({"entries": [3]}, r"mixture\.entries\.3: Input should be a mapping"),
    ],
    ids=str,
)
def test_what_is_not_mapped_or_not_there_is_named(tmp_path, change, message):
    with pytest.raises(RecipeError, match=message):
        validate_whole_recipe(compose_recipe(write_recipe(tmp_path, {**IDEFICS2, **change})).recipe)


@pytest.mark.parametrize("entries", [{"mine": 25}, [{"source": "mine", "share": 25}], {"mine": {"share": 25}}], ids=str)
def test_sources_of_ones_own_stand_beside_a_published_mixture_whose_others_keep_their_ratios(tmp_path, entries):
    use = {**IDEFICS2, "sources": {"obelics": "web", "documents": "scans"}, "without": ["pairs"], "entries": entries}
    path = write_recipe(tmp_path, use, ("web", "scans", "mine"))
    shares = {entry.source: entry.share for entry in read_mixture(path).resolved()}
    assert shares == {"web": 45, "scans": 20, "mine": 25}
    (note,) = compose_recipe(path).notes
    assert f"obelics {100 * 45 / 90:.4g} %, documents {100 * 20 / 90:.4g} %" in note
    use = {"published": "llava_1_5/sft", "sources": {"*": "web"}, "entries": {"mine": {"repeat": 2}}}
    *_, mine = read_mixture(write_recipe(tmp_path, use, ("web", "mine"))).resolved()
    assert (mine.source, mine.repeat, mine.share) == ("mine", 2, None)


def test_the_lock_holds_the_mixture_and_not_its_name(tmp_path):
    data = compose_recipe(write_recipe(tmp_path, IDEFICS2)).data
    assert "published" not in str(data)
    assert data["stages"][0]["mixture"]["entries"][0] == {"source": "web", "share": 45}


def test_a_mixture_that_is_replaced_or_not_taken_needs_no_sources(tmp_path):
    write_recipe(tmp_path, IDEFICS2)
    inside = {"recipe": "recipe.yaml", "take": ["sources.web", "policies", "tokenizer"]}
    own = {"name": "b", "include": [inside]}
    for more in ({}, {"replace": {"stages.one.mixture": {"shares": {"web": 1}, "sequence_length": 64}}}):
        taken = [*inside["take"], *(["stages"] if more else [])]
        (tmp_path / "b.yaml").write_text(yaml.safe_dump({**own, **more, "include": [{**inside, "take": taken}]}))
        found = compose_recipe(str(tmp_path / "b.yaml"))
        assert [stage.mixture for stage in found.recipe.stages] == list(more.get("replace", {}).values())
        assert found.notes == ()
