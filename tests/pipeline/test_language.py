"""What counts as Chinese and what does not: alone, among neighbours, in turns, and when nobody can tell."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.hard_set import hard_set
from benchmarks.language import BARS, filtered
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError, VlmillError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import WHOLE_SAMPLE, Node, Sample, SampleId
from vlmill.pipeline.filters import Language, Undecided
from vlmill.pipeline.filters.language import lid
from vlmill.pipeline.filters.language.evidence import Weights
from vlmill.pipeline.filters.language.prose import (
    extract_prose,
    remove_quotations,
    split_paragraphs,
    split_running_words,
)
from vlmill.pipeline.filters.language.script import BLOCK, HAN, Trait, measure_traits

ENGLISH = "The harbour was frozen for most of the winter, and no ship could leave before March."
CHINESE = "港口在冬天的大部分时间里都结了冰，没有一艘船能够在三月之前离开。"
TRADITIONAL = "港口在冬天的大部分時間裡都結了冰，沒有一艘船能夠在三月之前離開。"
JAPANESE = "港は冬のほとんどの間凍っていて、三月より前に出港できた船は一隻もなかった。"
KOREAN = "항구는 겨울 내내 거의 얼어 있었고, 삼월 이전에는 어떤 배도 떠날 수 없었다."
GERMAN = "Der Hafen war fast den ganzen Winter über zugefroren, und kein Schiff konnte vor März auslaufen."


def fate(*texts, filter_=None, roles=None):
    """For each text `keep`, `drop` or `doubt`; a sample that goes as a whole drops all of them."""
    places = [(roles[index], index // 2) if roles else ("none", 0) for index in range(len(texts))]
    nodes = tuple(Node("text", role, turn, text=text) for text, (role, turn) in zip(texts, places, strict=True))
    found = ["keep"] * len(texts)
    for finding in (filter_ or Language()).decide([(0, Sample(SampleId("web", "a", 0), nodes))], []):
        here = range(len(texts)) if finding.node == WHOLE_SAMPLE else [finding.node]
        for node in here:
            found[node] = "doubt" if isinstance(finding, Undecided) else "drop"
    return found


def dialogue(*texts, filter_=None):
    return fate(*texts, filter_=filter_, roles=["user", "assistant"] * (len(texts) // 2))


@pytest.mark.parametrize(
    "text",
    [
        CHINESE,
        TRADITIONAL,
        "我哋嘅團隊話畀我知應該點做，唔使等咁耐㗎。",  # Cantonese
        "侬好，阿拉是上海人。",  # Wu
        "白日依山盡，黃河入海流。",
        "ㄅㄆㄇㄈ",
        "设置",
        "ＡＢＣ公司２０２３年报告书已经发布",  # full width
        "这 是 一 个 测 试 文 档",  # as OCR spaces it
        "卷积神经网络（Convolutional Neural Network, CNN）是一种深度学习模型。",
        "任天堂发布了新款游戏《スプラトゥーン》。",
        "“こんにちは”是日语的你好。",
        "优の良品",
        "在 Visual Studio 中使用 Azure DevOps 创建一个新的项目",
    ],
)
def test_chinese_goes_in_whatever_script_width_and_company(text):
    assert fate(text) == ["drop"]


@pytest.mark.parametrize(
    "text",
    [
        ENGLISH,
        JAPANESE,
        KOREAN,
        GERMAN,
        "関連項目",  # kanji alone, but of no Chinese set
        "国際",  # simplified and traditional at once
        "ﾌﾟﾘﾝﾀ設定",  # half width
        "使い方",
        "「这个」は中国語で「これ」という意味です。",
        "大韓民國의 主權은 國民에게 있고, 모든 權力은 國民으로부터 나온다.",
        "한자(漢字)는 중국에서 왔다.",
        "The word 民主 is often translated as democracy.",
        "He is known as 孔夫子 (Kǒng Fūzǐ), the master of the school.",
        "Das Wort 道 lässt sich nur schwer übersetzen.",
        "Слово 茶 пришло в русский язык из Китая.",
        "She said “我爱你” and closed the door behind her.",
        "Wǒmen zài Běijīng de dàxué lǐ xuéxí zhōngwén.",
        "wo men zai bei jing de da xue li xue xi zhong wen",
        "see https://zh.wikipedia.org/wiki/北京 for more",
        "http://例子.测试/路径",
        'message = "请输入密码"',
        "2023-10-01 12:30",
        "* * *",
        "",
    ],
)
def test_everything_else_stays(text):
    assert fate(text) == ["keep"]


@pytest.mark.parametrize("heading", ["概要", "参考文献", "注意事項", "利用規約", "東京都", "設定方法", "第一章"])
def test_a_heading_that_both_could_have_written_follows_its_page(heading):
    assert fate(JAPANESE, heading, JAPANESE)[1] == "keep"
    assert fate(TRADITIONAL, heading, TRADITIONAL)[1] == "drop"
    assert fate(heading) in (["doubt"], ["keep"])


def test_a_heading_on_a_mixed_page_follows_the_section_below_it():
    page = [JAPANESE, "目次", CHINESE, CHINESE, "目次", JAPANESE, JAPANESE]
    assert fate(*page) == ["keep", "drop", "drop", "drop", "keep", "keep", "keep"]


def test_a_word_that_only_chinese_has_goes_from_a_japanese_page_and_the_reverse_stays():
    assert fate(JAPANESE, "简体中文设置", JAPANESE)[1] == "drop"
    assert fate(CHINESE, "関連項目", CHINESE, filter_=Language(sample_share=1.0))[1] == "keep"


def test_hanja_headings_stay_on_korean_pages():
    assert fate(KOREAN, "大韓民國 憲法", KOREAN) == ["keep"] * 3


def test_names_in_old_spelling_stay_on_japanese_pages():
    assert "drop" not in fate(JAPANESE, "齋藤 渡邊 澤田", JAPANESE, "國學院大學", JAPANESE)


def test_a_chinese_paragraph_goes_from_an_english_page_alone():
    assert fate(ENGLISH, CHINESE, ENGLISH) == ["keep", "drop", "keep"]


def test_a_document_that_is_mostly_chinese_goes_as_a_whole():
    assert fate(CHINESE, CHINESE, CHINESE, CHINESE, "Contents", CHINESE) == ["drop"] * 6
    assert fate(CHINESE, CHINESE, ENGLISH, filter_=Language(sample_share=0.9)) == ["drop", "drop", "keep"]
    assert fate(CHINESE, CHINESE, ENGLISH, filter_=Language(sample_share=0.5)) == ["drop"] * 3


def test_code_is_no_language_so_a_tutorial_with_listings_goes_as_a_whole():
    listing = "for (int i = 0; i < n; i++) {\n    total += values[i];\n}\nreturn total;"
    assert fate(CHINESE, listing, CHINESE, listing) == ["drop"] * 4


def test_turns_are_filtered_by_themselves_and_their_answer():
    talk = dialogue("What is in the picture?", "A ship.", "这张图片里有什么？", "方法", "何が見えますか。", "方法")
    assert talk == ["keep", "keep", "drop", "drop", "keep", "keep"]


def test_one_long_chinese_answer_does_not_outweigh_many_short_turns():
    talk = dialogue("Read it.", 20 * CHINESE, "What is it?", "A letter.", "Who wrote it?", "My uncle.")
    assert talk == ["keep", "drop", "keep", "keep", "keep", "keep"]


def test_a_listing_is_in_the_language_of_its_comments():
    commented = "def load(path):  # 打开文件并读取内容\n    return open(path).read()  # 保存结果"
    assert fate(ENGLISH, commented, ENGLISH)[1] == "drop"
    assert fate(ENGLISH, 'print("打开文件")\nreturn label("保存结果");', ENGLISH)[1] == "keep"
    assert fate(ENGLISH, "def load(path):  # open the file, 打开\n    return open(path).read()", ENGLISH)[1] == "keep"


@pytest.mark.parametrize(("in_doubt", "left"), [("keep", ["doubt"]), ("drop", ["drop"])])
def test_what_cannot_be_told_is_marked_and_the_parameter_decides(in_doubt, left):
    assert fate("東京", filter_=Language(in_doubt=in_doubt)) == left


# -- paragraphs of one node --------------------------------------------------------------------------------------


def test_a_text_goes_for_one_chinese_paragraph_in_it():
    long = "\n\n".join([ENGLISH] * 6)
    assert fate(f"{long}\n\n{CHINESE}", ENGLISH, long) == ["drop", "keep", "keep"]
    assert dialogue("Say it in Chinese.", f"{ENGLISH}\r\n\r\n{CHINESE}", "Thanks!", long)[1::2] == ["drop", "keep"]
    assert fate(f"{JAPANESE}\n\n概要\n\n{JAPANESE}", ENGLISH) == ["keep", "keep"]


def test_one_short_paragraph_in_another_script_does_not_take_an_answer():
    answer = "\n\n".join([ENGLISH] * 6 + ["Bon appétit et bonne journée à tous !"])
    assert dialogue("How do I cook it?", answer, filter_=Language(keep=["en"])) == ["keep", "keep"]
    assert dialogue("How?", "\n\n".join([GERMAN] * 4 + [ENGLISH]), filter_=Language(keep=["en"]))[1] == "drop"


def test_a_document_is_weighed_by_its_unwanted_paragraphs_not_by_the_nodes_that_hold_them():
    texts = ["\n\n".join([ENGLISH] * 9 + [CHINESE])] * 5 + [ENGLISH]
    assert fate(*texts) == ["drop"] * 5 + ["keep"]


def test_chinese_behind_any_number_of_characters_is_found():
    assert fate(f"{ENGLISH}\n\n" * 1000 + CHINESE, ENGLISH) == ["drop", "keep"]
    assert fate("word " * 30_000 + CHINESE, ENGLISH, filter_=Language(strict=True)) == ["drop", "keep"]


def test_paragraphs_are_divided_at_blank_lines_but_not_inside_of_listings():
    listing = "```python\none()\n\ntwo()\n```"
    text = f"First\nline\n \t\n\nSecond\r\n\r\n{listing}\n\n\nLast\u2029End\n\n```\nopen\n\nlisting"
    assert split_paragraphs(text, 1000) == [
        "First\nline",
        "Second",
        listing,
        "Last",
        "End",
        "```\nopen\n\nlisting",
    ]
    assert split_paragraphs("abcdef\n\ngh", 4) == ["abcd", "ef", "gh"]
    assert split_paragraphs(" \n\n ", 4) == []


def test_traits_do_not_depend_on_how_many_texts_are_counted_at_once():
    texts = [ENGLISH, CHINESE, JAPANESE] * (BLOCK // 2)
    assert np.array_equal(measure_traits(texts), np.tile(measure_traits(texts[:3]), (BLOCK // 2, 1)))


# -- strict ------------------------------------------------------------------------------------------------------

STRICT = Language(drop=("zh",), strict=True)


@pytest.mark.parametrize(
    "text",
    [
        "The word 民主 means democracy, as every reader of this page may already know.",
        'print("打开文件")',
        "See https://zh.wikipedia.org/wiki/港口 for more on harbours.",
        "The shop is called 優の良品, and it sells snacks to those who pass by.",  # a borrowed kana
        "Kyōto (京都) is the old capital of the country.",
        "In Japanese this is 寿司 (すし), as they say there.",  # a quotation, whose sentence is English
        "ㄅㄆㄇ are the first letters.",
        "Strokes such as ㇀ and radicals such as ⺀ have codes of their own.",
        "The sign says \U0001f232, and the stamp ㊙.",
        "A rare one: \U00030edd.",
        "関東",  # no Chinese has it, but nothing makes it Japanese text
        "東京",
    ],
)
def test_strict_leaves_no_han_outside_of_japanese_and_korean(text):
    assert fate(ENGLISH, text, ENGLISH, filter_=STRICT) == ["keep", "drop", "keep"]
    assert fate(f"{ENGLISH}\n\n{text}", ENGLISH, ENGLISH, filter_=STRICT) == ["drop", "keep", "keep"]


@pytest.mark.parametrize("text", ["漢字", "鮮の味", "概要", "港町の春"])
def test_what_could_be_both_follows_its_neighbours_under_strict(text):
    assert fate(JAPANESE, text, JAPANESE, filter_=STRICT) == ["keep"] * 3
    assert fate(CHINESE, text, CHINESE, ENGLISH * 9, filter_=STRICT)[1] == "drop"


def test_strict_keeps_japanese_and_korean_as_they_are_written():
    assert fate(JAPANESE, "概要", "関連項目", "東京都", JAPANESE, filter_=STRICT) == ["keep"] * 5
    assert fate(KOREAN, "大韓民國 憲法", "대한민국(大韓民國)의 헌법은 다음과 같다.", filter_=STRICT) == ["keep"] * 3
    assert fate("Windowsの設定を開きます。", filter_=STRICT) == ["keep"]
    assert dialogue("何が見えますか。", "船", "Thanks!", "A ship.", filter_=STRICT) == ["keep"] * 4


def test_strict_asks_the_neighbours_for_the_same_language():
    assert fate(KOREAN, "設定を開く", ENGLISH, filter_=Language(drop=("zh", "ja"), strict=True))[1] == "drop"
    assert fate(JAPANESE, JAPANESE, filter_=Language(keep=("en",), strict=True)) == ["drop", "drop"]
    assert fate(KOREAN, "大韓民國 憲法", filter_=Language(keep=("en", "ko"), strict=True)) == ["keep", "keep"]


def test_what_strict_alone_drops_has_its_own_reason_and_the_number_of_characters():
    nodes = (Node("text", text=ENGLISH), Node("text", text="Peace is 和平 there."))
    (found,) = STRICT.decide([(0, Sample(SampleId("web", "a", 0), nodes))], [])
    assert (found.node, found.reason, found.score) == (1, Reason.HAN_CHARACTERS, 2)


@given(
    st.lists(
        st.lists(
            st.sampled_from([ENGLISH, CHINESE, TRADITIONAL, "東京", "see 民主 here", "x = '设置'", "㈱", "の", "a"])
        ).map("\n\n".join),
        min_size=1,
        max_size=6,
    )
)
def test_no_han_is_left_of_any_page_without_kana_and_hangul(texts):
    found = fate(*texts, filter_=STRICT)
    assert [text for text, end in zip(texts, found, strict=True) if end != "drop" and HAN.search(text)] == []


def test_scores_are_the_share_of_a_sample_and_the_probability_of_a_node():
    whole = Sample(SampleId("web", "a", 0), (Node("text", text=CHINESE),))
    part = Sample(SampleId("web", "a", 1), (Node("text", text=CHINESE), Node("text", text=ENGLISH)))
    first, second = Language().decide([(0, whole), (1, part)], [])
    assert (first.node, first.reason, first.score) == (WHOLE_SAMPLE, Reason.LANGUAGE, 1.0)
    assert (second.node, second.reason) == (0, Reason.LANGUAGE)
    assert 0.99 < second.score <= 1.0


def test_other_languages_can_be_dropped_or_be_the_only_ones_kept():
    page = [ENGLISH, GERMAN, JAPANESE, CHINESE, KOREAN]
    assert fate(*page, filter_=Language(drop=("de",))) == ["keep", "drop", "keep", "keep", "keep"]
    assert fate(*page, filter_=Language(drop=("ja", "ko"))) == ["keep", "keep", "drop", "keep", "drop"]
    assert fate(*page, filter_=Language(keep=("en", "ja"))) == ["keep", "drop", "keep", "drop", "drop"]


def test_a_short_text_in_a_latin_script_follows_its_page_too():
    assert fate(GERMAN, "Hand in Hand", GERMAN, filter_=Language(drop=("en",)))[1] != "drop"
    assert fate(ENGLISH, "1914", "***", filter_=Language(keep=("de",), sample_share=1.0))[1:] != ["doubt", "doubt"]


@given(st.lists(st.text(max_size=40), max_size=5))
@settings(max_examples=150, deadline=None)
def test_any_text_can_be_filtered_and_none_without_han_is_dropped_as_chinese(texts):
    fates = fate(*texts)
    sums = measure_traits(texts)
    assert all(sums[index, Trait.HAN] > 0 for index, one in enumerate(fates) if one == "drop" and len(texts) == 1)
    fate(*texts, filter_=Language(keep=("en",)))


@given(st.text(max_size=30), st.text(max_size=30))
@settings(max_examples=100, deadline=None)
def test_traits_add_up(first, second):
    assert np.allclose(measure_traits([first + second])[0], measure_traits([first, second]).sum(axis=0))


def test_the_character_sets_know_their_own():
    simplified, traditional, japanese, korean = (measure_traits([text])[0] for text in ("这说", "這說", "込関", "畵"))
    assert simplified[Trait.NOT_SIMPLIFIED] == traditional[Trait.NOT_TRADITIONAL] == 0
    assert japanese[Trait.NOT_JAPANESE] == korean[Trait.NOT_KOREAN] == 0
    assert min(simplified[Trait.NOT_JAPANESE], traditional[Trait.NOT_JAPANESE]) > 0
    assert min(japanese[Trait.NOT_SIMPLIFIED], japanese[Trait.NOT_TRADITIONAL]) > 0


def test_half_and_full_width_are_the_same_script():
    assert (measure_traits(["ｶﾅ"]) == measure_traits(["カナ"])).all()
    assert measure_traits(["ＡＢ"])[0, Trait.LETTER] == 2
    assert measure_traits(["\U00020bb7野家"])[0, Trait.HAN] == 3  # beyond the basic plane


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("return total; // 返回总数", "返回总数"),
        ("```\nimport os\n# 设置 paths\n```", "设置 paths"),
        ("call `open()` or see https://a.test/文/ <b>now</b>", "call or see now"),
        ("where $x_1 = \\frac{1}{2}$ holds", "where holds"),
        ("ＡＢＣ ｶﾅ", "ABC カナ"),
        (
            "A sentence with (brackets) and a semicolon; nothing else.",
            "A sentence with (brackets) and a semicolon; nothing else.",
        ),
    ],
)
def test_prose_is_what_people_read(text, left):
    assert extract_prose(text).split() == left.split()


def test_quotations_and_brackets_are_told_from_the_sentence_around_them():
    assert remove_quotations("It's “民主” (minzhu), don't you see?").split() == ["It's", ",", "don't", "you", "see?"]


def test_words_are_running_words_and_not_names_identifiers_or_stains():
    assert split_running_words("the ship sails") == 3
    assert split_running_words("Visual Studio") < split_running_words("the ship")
    assert split_running_words("os.path.join x y z foo_bar 12") == 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"drop": ["zh"], "keep": ["en"]}, "give one of the two"),
        ({"drop": ["xx"]}, "'xx' is no language code: .*allowed"),
        ({"drop": ["cn"]}, r"'cn' is no language code: did you mean 'zh'\?"),
        ({"drop": ["zh-Hans"]}, r"'zh-Hans' is no language code: did you mean 'zh'\?"),
        ({"drop": ["Chinese"]}, r"'Chinese' is no language code: did you mean 'zh'\?"),
        ({"keep": ["english"]}, r"'english' is no language code: did you mean 'en'\?"),
        ({"keep": ["eng_Latn"]}, r"'eng_Latn' is no language code: did you mean 'en'\?"),
        ({"keep": []}, "keep names no language, so all texts would go"),
        ({"drop": ["yue"]}, "part of zh"),
        ({"sample_share": 0}, "greater than 0"),
        ({"in_doubt": "ask"}, "'keep' or 'drop'"),
        ({"drop": ["ja"], "strict": True}, "drop zh, or leave strict out"),
        ({"keep": ["zh", "en"], "strict": True}, "drop zh, or leave strict out"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, message):
    with pytest.raises(RecipeError, match=message):
        parse_block(Language, values, "filters.language")


def test_chinese_is_dropped_if_nothing_is_said():
    assert parse_block(Language, {}, "filters.language").drop == ("zh",)
    assert parse_block(Language, {"keep": ["en"]}, "filters.language").drop is None


def test_a_model_file_with_other_bytes_is_refused(tmp_path, monkeypatch):
    (tmp_path / "lid.176.ftz").write_bytes(b"another model")
    monkeypatch.setattr(lid, "_find_model", lambda: tmp_path / "lid.176.ftz")
    with pytest.raises(VlmillError, match="has sha256 .* not 8f3472cf"):
        lid.load_model.__wrapped__()


def test_the_package_that_fails_under_numpy_2_is_refused_by_name(monkeypatch):
    impostor = ModuleType("fasttext")
    impostor.train_supervised = None
    monkeypatch.setitem(sys.modules, "fasttext", impostor)
    with pytest.raises(VlmillError, match="pip uninstall -y fasttext"):
        lid.load_model.__wrapped__()


def test_the_model_predicts_under_the_installed_numpy():
    assert lid.predict_languages("This is a sentence in English.")["en"] > 0.5
    assert lid.predict_languages("我哋嘅團隊", most=2).keys() & lid.SINITIC == set()


def test_the_bars_hold_on_a_small_part_of_the_hard_set():
    items = [item for item in hard_set(per_category=60) if item.scored]
    outcomes = filtered(items, Weights())
    for language, bar in BARS.items():
        mine = [
            dropped == (language == "zh")
            for item, (dropped, _) in zip(items, outcomes, strict=True)
            if item.language == language
        ]
        assert len(mine) > 50
        assert sum(mine) >= bar * len(mine)
