"""The measures of text quality, the bounds on them, image quality, and lists of opt-outs."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.keys import hash_value
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    WHOLE_SAMPLE,
    ImageStats,
    Node,
    Sample,
    SampleId,
    Verdict,
    read_verdicts,
    write_samples,
)
from vlmill.pipeline.core.step import get_parameters
from vlmill.pipeline.fetch.opt_outs import normalise_address
from vlmill.pipeline.filters import (
    FilterStep,
    ImageQuality,
    OptOut,
    Shape,
    TextQuality,
    Undecided,
    measures,
    word_lists,
)

ENGLISH = "The harbour was frozen for most of the winter, and no ship could leave before the first days of March."
GERMAN = (
    "Der Hafen war den größten Teil des Winters zugefroren, und kein Schiff konnte vor den ersten Tagen im März "
    "auslaufen."
)
KEYWORDS = (
    "harbour winter ship tickets cheap hotel booking flight rental discount offers weather forecast webcam Baltic "
    "cruise"
)
CHINESE = "港口在冬天的大部分时间里都结了冰，没有一艘船能够在三月初之前离开。渔民们留在家里修补渔网，孩子们在冰上滑行。"


def said(filter_, *texts, role="none", image_stats=()):
    """(node, reason) of every verdict on one sample of these texts, and the nodes in doubt."""
    sample = Sample(
        SampleId("web", "a", 0), tuple(Node("text", role, turn, text=text) for turn, text in enumerate(texts))
    )
    findings = list(filter_.decide([(0, sample)], image_stats))
    return (
        [(finding.node, finding.reason) for finding in findings if isinstance(finding, Verdict)],
        [finding.node for finding in findings if isinstance(finding, Undecided)],
    )


def quality(node=None, sample=None, **settings):
    """The filter with nothing asked but what is given."""
    off = dict.fromkeys(("max_character_repetition", "max_word_repetition", "max_unreadable_characters"))
    return parse_block(
        TextQuality, {"node": off | (node or {}), "sample": off | (sample or {}), **settings}, "text_quality"
    )


# -- measures ----------------------------------------------------------------------------------------------------------


def test_words_are_lower_case_without_signs_at_their_ends_and_numbers_are_none():
    assert measures.split_words("“Well-known” (3.5 m), isn't IT?\n– 12") == ["well-known", "m", "isn't", "it"]
    assert measures.split_words("e\u0301te\u0301") == ["été"]  # composed and decomposed are one word
    assert measures.split_words("नमस्ते दुनिया।") == ["नमस्ते", "दुनिया"]  # marks belong to their letters


def test_scripts_without_spaces_have_a_word_for_every_two_characters():
    assert measures.split_words("港口结冰了。OK") == ["港口", "结冰", "了", "ok"]
    assert len(measures.split_words("ภาษาไทย")) == 4
    assert measures.split_words("한국어 문장") == ["한국어", "문장"]


def test_character_repetition_is_the_share_of_the_runs_that_come_most():
    assert measures.measure_character_repetition("a" * 30) == 1.0
    assert measures.measure_character_repetition("abcdefghijklmnopqrstuvwxyz") == 0.0
    assert measures.measure_character_repetition("short") == 0.0
    # 41 characters have 32 runs: two kinds come four times, eight come three times; of 10 kinds the root is 3
    assert measures.measure_character_repetition("0123456789" * 4 + "0") == pytest.approx((4 + 4 + 3) / 32)


@given(st.text(max_size=80))
def test_character_repetition_is_that_of_roots(text):
    """The formula as the paper says it, with runs themselves in place of hashes."""
    runs = sorted(Counter(text[i : i + 10] for i in range(len(text) - 9)).values(), reverse=True)
    most = min(int(len(runs) ** 0.5), sum(number > 1 for number in runs))
    assert measures.measure_character_repetition(text) == pytest.approx(sum(runs[:most]) / max(sum(runs), 1))


def test_word_repetition_is_the_share_of_runs_of_five_words_that_come_again():
    assert measures.measure_word_repetition(["a", "b", "c", "d", "e"]) == 0.0
    assert measures.measure_word_repetition(["a", "b", "c", "d", "e", "a", "b", "c", "d", "e"]) == pytest.approx(2 / 6)
    assert measures.measure_word_repetition(["a"] * 9) == 1.0


@given(st.text(max_size=60))
def test_every_measure_is_a_share(text):
    found = measures.split_words(text)
    for value in (
        measures.measure_character_repetition(text),
        measures.measure_word_repetition(found),
        measures.measure_special_characters(text),
        measures.measure_unreadable_characters(text),
        measures.measure_punctuation(text),
        measures.measure_share(found, {"the"}),
    ):
        assert 0.0 <= value <= 1.0


def test_special_characters_are_all_but_letters_and_their_marks():
    assert measures.measure_special_characters("ab 1") == 0.5
    assert measures.measure_special_characters("👩‍🔬!") == 1.0
    assert measures.measure_special_characters("नमस्ते") == 0.0
    assert measures.measure_special_characters("") == 0.0


def test_unreadable_characters_are_those_that_stand_for_nothing():
    assert measures.measure_unreadable_characters("\x01\x02ab") == 0.5
    assert measures.measure_unreadable_characters("\ufffd\ue000\U000e0fff") == 1.0
    assert measures.measure_unreadable_characters("tab\tand line\r\n, 👩\u200d🔬, \u00ad, ｗｉｄｅ\u3000") == 0.0


def test_punctuation_is_counted_against_words_and_an_apostrophe_is_none():
    assert measures.measure_punctuation("It's cold, isn't it?") == pytest.approx(2 / 6)
    assert measures.measure_punctuation("harbour winter ship") == 0.0


# -- text quality ------------------------------------------------------------------------------------------------------


def test_the_defaults_drop_loops_and_garbage_and_leave_all_that_says_something():
    stay = [
        ENGLISH,
        GERMAN,
        CHINESE,
        KEYWORDS,
        "Chapter 3",
        "if (a[i] != b[i]) { return -1; }",
        "TOTAL 12.50 EUR\nCASH 20.00\nCHANGE 7.50",
    ]
    assert said(TextQuality(), *stay) == ([], [])
    contents = "\n".join(f"{word} {'. ' * 30}{number}" for number, word in enumerate(KEYWORDS.split()))
    assert said(TextQuality(), contents, "854.9 839.3 837.5 851.5", "|", "12") == ([], [])
    loops = ["Read more about this! " * 30, "-" * 40, "\x01\x02\x03", "下一页请看说明" * 20]
    assert [node for node, _ in said(TextQuality(), *loops)[0]] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("bounds", "text", "reason"),
    [
        ({"min_words": 4}, "Chapter three", Reason.TOO_FEW_WORDS),
        ({"max_words": 10}, ENGLISH, Reason.TOO_MANY_WORDS),
        ({"max_character_repetition": 0.1}, "Next page, please. " * 8, Reason.CHARACTER_REPETITION),
        ({"max_word_repetition": 0.1}, "Go to the next page. " * 4, Reason.WORD_REPETITION),
        ({"max_special_characters": 0.3}, "12.50 + 7.50 = 20.00 (EUR)", Reason.SPECIAL_CHARACTERS),
        ({"max_unreadable_characters": 0.1}, "fi\ufffdrst \x01\ue000", Reason.UNREADABLE_CHARACTERS),
        ({"min_stop_words": 0.2}, KEYWORDS, Reason.STOP_WORDS),
        (
            {"max_flagged_words": 0.1},
            "the best porn and the best pornstars for all who like porn on our site",
            Reason.FLAGGED_WORDS,
        ),
        ({"min_punctuation": 0.001}, KEYWORDS, Reason.PUNCTUATION),
    ],
)
def test_every_bound_has_its_reason_at_both_levels(bounds, text, reason):
    assert said(quality(node=bounds), text)[0] == [(0, reason)]
    assert said(quality(sample=bounds), text)[0] == [(WHOLE_SAMPLE, reason)]
    assert said(quality(), text) == ([], [])


def test_the_sample_is_filtered_by_what_its_nodes_left():
    filter_ = quality(node={"max_special_characters": 0.6}, sample={"min_words": 5})
    assert said(filter_, "one two three four five", "--- 1 ---")[0] == [(1, Reason.SPECIAL_CHARACTERS)]
    assert said(filter_, "--- a b c d e f ---" + "-" * 40)[0] == [
        (0, Reason.SPECIAL_CHARACTERS),
        (WHOLE_SAMPLE, Reason.TOO_FEW_WORDS),
    ]


def test_short_texts_are_not_asked_for_ratios_of_words():
    assert said(quality(node={"min_punctuation": 0.01}), "No full stop here")[0] == []
    assert said(quality(node={"min_punctuation": 0.01, "ratios_from": 3}), "No full stop here")[0] == []
    assert said(quality(node={"min_punctuation": 0.01, "punctuation_from": 4}), "No full stop here")[0] == [
        (0, Reason.PUNCTUATION)
    ]
    assert said(quality(languages=["en"], node={"min_stop_words": 0.3}), "sofa kettle drill jacket")[0] == []
    assert said(
        quality(languages=["en"], node={"min_stop_words": 0.3, "ratios_from": 4}), ENGLISH, "sofa kettle drill tap"
    )[0] == [(1, Reason.STOP_WORDS)]


PUBLISHED = {"max_special_characters": 0.3, "min_stop_words": 0.3, "min_punctuation": 0.001, "ratios_from": 1}
KOREAN = "항구는 겨울 내내 거의 얼어 있었고, 3월 이전에는 배가 떠날 수 없었다. 어부들은 집에 남아 그물을 고쳤다."


def test_bounds_of_one_language_are_asked_of_samples_in_it_or_in_none():
    asked = quality(languages=["en"], node=PUBLISHED, sample=PUBLISHED)
    assert said(quality(node=PUBLISHED), KOREAN)[0] != []
    assert said(asked, KOREAN, KOREAN) == ([], [])
    assert said(asked, GERMAN, KEYWORDS)[0] == []
    assert said(asked, ENGLISH, KEYWORDS + ".")[0] == [(1, Reason.STOP_WORDS)]
    assert said(asked, GERMAN * 11, *[ENGLISH] * 40, KEYWORDS + ".")[0][-1] == (41, Reason.STOP_WORDS)
    assert said(asked, "x1 / 7 ; q9 = 3", "7 8 9 | 10 11")[0][0] == (0, Reason.SPECIAL_CHARACTERS)


def test_texts_in_other_languages_keep_to_the_defaults_and_to_their_flagged_words():
    asked = quality(languages=["en"], node={**PUBLISHED, "max_flagged_words": 0.01})
    assert said(asked, GERMAN, GERMAN + " Porno.", 20 * "Das ist sehr gut. ")[0] == [
        (1, Reason.FLAGGED_WORDS),
        (2, Reason.WORD_REPETITION),
    ]


def test_a_language_that_the_model_does_not_know_is_refused():
    with pytest.raises(RecipeError, match=r"languages: 'english' is no language code: did you mean 'en'\?"):
        quality(languages=["english"])
    with pytest.raises(RecipeError, match=r"flagged_words: 'deu' is no language code: did you mean 'de'\?"):
        quality(flagged_words={"deu": ["pfui"]})


def test_word_lists_are_looked_up_by_the_language_of_the_text():
    filter_ = quality(node={"min_stop_words": 0.2})
    assert said(filter_, ENGLISH, GERMAN)[0] == []
    assert said(filter_, KEYWORDS)[0] == [(0, Reason.STOP_WORDS)]


RARE = "the xqzv of trallo and the brimpf was snorkt in the gwefl of all the zzyq"


def test_common_words_are_those_that_people_write_and_compounds_of_them():
    pytest.importorskip("wordfreq")
    common = word_lists.get_common_words("en")
    assert all(word in common for word in ("harbour", "well-known", "don\u2019t", "frozen/thawed", "isn't"))
    assert not any(word in common for word in ("xqzvtr", "harbour-xqzvtr", "", "-"))
    assert "hafen" in word_lists.get_common_words("de")
    assert word_lists.get_common_words("no") is not None  # it is counted as Bokmål
    assert word_lists.get_common_words("ja") is None  # a word is two characters here
    assert word_lists.get_common_words("sw") is None


def test_texts_of_rare_words_go_where_common_words_are_asked_for():
    pytest.importorskip("wordfreq")
    for level, place in (("node", 0), ("sample", WHOLE_SAMPLE)):
        filter_ = quality(languages=["en"], **{level: {"min_common_words": 0.8}})
        assert said(filter_, RARE) == ([(place, Reason.COMMON_WORDS)], [])
        assert said(filter_, ENGLISH) == ([], [])
    assert said(quality(node={"min_common_words": 0.8}), CHINESE) == ([], [0])
    assert quality(node={"min_common_words": 0.8}).made_by()["wordfreq"]


def test_common_words_without_their_package_name_the_extra(monkeypatch):
    word_lists.get_common_words.cache_clear()
    monkeypatch.setitem(sys.modules, "wordfreq", None)
    with pytest.raises(RecipeError, match=r"min_common_words needs the package wordfreq.*pip install '.\[words\]'"):
        quality(sample={"min_common_words": 0.9}).made_by()
    assert "wordfreq" not in quality(sample={"min_stop_words": 0.3}).made_by()


def test_a_language_without_a_list_is_not_filtered_by_it_and_counts_as_undecided():
    assert said(quality(node={"min_stop_words": 0.2}), CHINESE, ENGLISH) == ([], [0])
    hungarian = (
        "A kikötő a tél nagy részében be volt fagyva, és egyetlen hajó sem tudott elindulni március első napjai előtt."
    )
    assert said(quality(node={"max_flagged_words": 0.01}), hungarian) == ([], [0])


def test_lists_of_ones_own_take_the_place_of_ours():
    filter_ = quality(node={"max_flagged_words": 0.01}, flagged_words={"en": ["Harbour"]})
    assert said(filter_, ENGLISH)[0] == [(0, Reason.FLAGGED_WORDS)]


def test_conversations_are_filtered_only_where_the_recipe_says_so():
    assert said(TextQuality(), "no no no no " * 40, role="assistant")[0] == []
    assert (0, Reason.WORD_REPETITION) in said(
        TextQuality(roles=("assistant",)), "no no no no " * 40, role="assistant"
    )[0]


def test_every_flagged_word_can_be_met():
    for words in word_lists.FLAGGED.values():
        assert all(measures.split_words(word) == [word] for word in words)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"node": {"min_words": 9, "max_words": 3}}, "min_words 9 is above max_words 3"),
        ({"node": {"max_word_repetition": 3}}, "less than or equal to 1"),
        ({"node": {"max_repetition": 0.3}}, "unknown key 'max_repetition'"),
        ({"flagged_words": {"zh": ["x"]}}, "zh is a language that is written without spaces"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(values, message):
    with pytest.raises(RecipeError, match=message):
        parse_block(TextQuality, values, "filters.text_quality")


# -- images ------------------------------------------------------------------------------------------------------------


def images(filter_, *image_stats):
    nodes = tuple(Node("image", image=image) for image in range(len(image_stats)))
    known = [ImageStats(image, stats.pop("reason", None), **stats) for image, stats in enumerate(image_stats)]
    return [
        (verdict.node, verdict.reason)
        for verdict in filter_.decide([(0, Sample(SampleId("web", "a", 0), nodes))], known)
    ]


def test_flat_colours_go_by_default_and_a_word_on_a_page_stays():
    assert images(
        ImageQuality(),
        {"contrast": 0.0},
        {"contrast": 0.7, "sharpness": 1.7},
        {"contrast": 0.0, "reason": Reason.UNDECODABLE},
    ) == [(0, Reason.BLANK_IMAGE)]
    assert images(ImageQuality(min_contrast=None), {"contrast": 0.0}) == []


def test_blurred_images_go_on_demand():
    assert images(
        ImageQuality(min_sharpness=100), {"contrast": 40, "sharpness": 60}, {"contrast": 40, "sharpness": 600}
    ) == [(0, Reason.BLURRED_IMAGE)]


def test_shape_bounds_pixels_and_words_for_each_image():
    assert images(
        Shape(min_pixels=20_000, max_pixels=1_000_000),
        {"width": 100, "height": 100},
        {"width": 200, "height": 200},
        {"width": 2000, "height": 600},
    ) == [
        (0, Reason.IMAGE_TOO_SMALL),
        (2, Reason.IMAGE_TOO_LARGE),
    ]
    nodes = (Node("text", text="only three words"), Node("image", image=0), Node("image", image=1))
    gallery = Sample(SampleId("web", "a", 0), nodes)
    known = [ImageStats(0, None, width=100, height=100), ImageStats(1, None, width=100, height=100)]
    for filter_, expected in ((Shape(min_words_per_image=2), 1.5), (Shape(max_words_per_image=1), 1.5)):
        (verdict,) = filter_.decide([(0, gallery)], known)
        assert (verdict.node, verdict.reason, verdict.score) == (WHOLE_SAMPLE, Reason.WORDS_PER_IMAGE, expected)
    assert list(Shape(min_words_per_image=1.5, max_words_per_image=1.5).decide([(0, gallery)], known)) == []


# -- opt-outs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("http://www.Site.example:80/a.png#top", "https://site.example/a.png", True),
        ("https://site.example", "http://site.example/", True),
        ("https://münchen.example/x", "https://xn--mnchen-3ya.example/x", True),
        ("https://site.example/A.png", "https://site.example/a.png", False),
        ("https://site.example/a.png?w=1", "https://site.example/a.png", False),
        ("https://site.example:8080/", "https://site.example/", False),
    ],
)
def test_addresses_are_compared_without_what_does_not_name_the_thing(one, other, same):
    assert (normalise_address(one) == normalise_address(other)) is same


@given(st.text(max_size=30))
def test_any_text_can_be_normalised_and_once_is_enough_for_addresses(text):
    normalise_address(text)
    assert normalise_address(
        f"https://{normalise_address('https://a.example/' + text.replace('#', ''))}"
    ) == normalise_address("https://a.example/" + text.replace("#", ""))


def opted_out(tmp_path, sample, image_stats=(), **lists):
    paths = {kind: tmp_path / f"{kind}.txt" for kind in lists}
    for kind, entries in lists.items():
        paths[kind].write_text("# a comment\n\n" + "\n".join(entries) + "\n", encoding="utf-8")
    filter_ = OptOut(**{kind: (str(path),) for kind, path in paths.items()})
    return [verdict.node for verdict in filter_.decide([(0, sample)], image_stats)]


def document(*urls, page=""):
    return Sample(
        SampleId("web", "a", 0), tuple(Node("image", image=image, url=url) for image, url in enumerate(urls)), url=page
    )


def test_a_domain_stands_for_its_sub_domains_and_for_no_other_that_ends_alike(tmp_path):
    sample = document(
        "https://img.site.example/1.png",
        "https://site.example/2.png",
        "https://mysite.example/3.png",
        "https://a.b.wild.example/4.png",
        None,
    )
    assert opted_out(tmp_path, sample, domains=["Site.example", "*.wild.example"]) == [0, 1, 3]


def test_an_address_drops_its_image_and_the_page_its_sample(tmp_path):
    sample = document("https://a.example/1.png", "https://a.example/2.png", page="https://a.example/page?x=1")
    assert opted_out(tmp_path, sample, urls=["http://a.example/2.png"]) == [1]
    assert opted_out(tmp_path, sample, urls=["http://www.a.example/page?x=1"]) == [WHOLE_SAMPLE]


def test_a_digest_drops_an_image_wherever_it_came_from(tmp_path):
    listed = hashlib.sha256(b"image").hexdigest()
    image_stats = [ImageStats(0, None, sha256=listed), ImageStats(1, None, sha256="0" * 64)]
    assert opted_out(
        tmp_path, document("https://a.example/1", "https://a.example/2"), image_stats, sha256=[listed.upper()]
    ) == [0]


@pytest.mark.parametrize(
    ("kind", "entry", "message"),
    [
        ("urls", "site.example/a.png", "starts with http:// or https://"),
        ("domains", "https://site.example/", "a domain is a name such as example.org"),
        ("sha256", "abc", "64 hexadecimal digits"),
    ],
)
def test_an_entry_that_is_none_is_named_with_its_line(tmp_path, kind, entry, message):
    with pytest.raises(RecipeError, match=f"{kind}.txt, line 3: .*{message}"):
        opted_out(tmp_path, document(), **{kind: [entry]})


def test_what_is_in_a_list_is_read_by_the_step_and_where_it_lies_is_not_in_its_key(tmp_path):
    write_samples(tmp_path / "samples.parquet", [document("https://a.site.example/1.png")])
    (tmp_path / "here.txt").write_text("site.example\n", encoding="utf-8")
    step = FilterStep(OptOut(domains=("lists/there.txt",)))
    assert step.reads == ("samples.parquet", "opt_out.domains.0.list")
    (tmp_path / "out").mkdir()
    inputs = {"samples.parquet": tmp_path / "samples.parquet", "opt_out.domains.0.list": tmp_path / "here.txt"}
    step.run(inputs, tmp_path / "out")
    assert [verdict.node for verdict in read_verdicts(tmp_path / "out" / "opt_out.verdicts.parquet")] == [0]
    assert hash_value(get_parameters(step)) == hash_value(
        get_parameters(FilterStep(OptOut(domains=("elsewhere.txt",))))
    )
