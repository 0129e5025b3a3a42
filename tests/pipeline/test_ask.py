"""The signal `ask` and a server on loopback: what is sent, how answers are read, and every way in which it fails."""

from __future__ import annotations

import json
import threading
import traceback
from email.utils import formatdate

import pytest
from PIL import Image

from tests.helpers.chat_server import PATH, ChatServer, choose_rating, rate, read_pictures, read_prompt, refuse, reply
from tests.helpers.servers import endless, first, hang_up, later, moved, silent, truncated, whole
from tests.helpers.signals import write_partition
from vlmill.pipeline.core.answers import read_answers
from vlmill.pipeline.core.config import parse_block
from vlmill.pipeline.core.errors import RecipeError, StoreError
from vlmill.pipeline.core.keys import make_key
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import read_verdicts
from vlmill.pipeline.core.scores import read_scores
from vlmill.pipeline.signals import ask_worker
from vlmill.pipeline.signals.ask import Ask
from vlmill.pipeline.signals.ask_form import Scale, read_ratings
from vlmill.pipeline.signals.endpoint import read_retry_after
from vlmill.pipeline.steps.score import ScoreSignal

RATING = {"prompt": "How good is this picture?", "answer": {"relevance": "1-5", "clarity": "1-5"}}
CAPTION = {"prompt": "Describe the picture.", "answer": "text"}
KEY = "sk-Very5ecret"


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(ask_worker, "FIRST_WAIT", 0.01)


def make(endpoint="http://127.0.0.1:9/v1", **settings):
    return parse_block(Ask, {"endpoint": endpoint, "model": "judge", **RATING, **settings}, "signals.rating")


def ask(folder, signal, samples, name="rating"):
    """The step over a partition: its counts, its values by place, and its answers."""
    out = folder / "out"
    out.mkdir()
    counts = ScoreSignal(name, signal).run(write_partition(folder, samples), out)
    scores = read_scores(out / f"{name}.scores.parquet")
    answers = list(read_answers(out / f"{name}.answers.parquet"))
    return counts["scored"], scores, answers


# -- what is sent ------------------------------------------------------------------------------------------------------


def test_ratings_become_columns_and_pictures_travel_as_jpeg(tmp_path):
    with ChatServer() as server:
        count, scores, answers = ask(tmp_path, make(server.endpoint, longest=20), [[0, "x"], [1, 2]])
    assert count.kept == 3
    assert scores.columns == ["sample", "node", "reason", "rating_relevance", "rating_clarity"]
    assert (scores["rating_relevance"] + scores["rating_clarity"]).to_list() == [6.0] * 3
    by_picture = {read_pictures(body)[0]: body for body in server.bodies()}
    assert len(by_picture) == 3
    for picture, body in by_picture.items():
        import io

        with Image.open(io.BytesIO(picture)) as image:
            assert (image.format, image.size) == ("JPEG", (20, 15))
        assert (body["temperature"], body["seed"], body["max_tokens"], body["model"]) == (0, 0, 512, "judge")
        assert body["response_format"]["json_schema"]["schema"]["properties"]["clarity"]["maximum"] == 5
        assert read_prompt(body).startswith("How good is this picture?\n\nAnswer with a JSON object")
    sent = {choose_rating(body) for body in server.bodies()}
    assert sent == set(scores["rating_relevance"].to_list())
    assert {(one.answer.served, one.answer.input_tokens, one.answer.output_tokens) for one in answers} == {
        ("served-model", 100, 7)
    }


@pytest.mark.parametrize(
    ("of", "text", "prompts"),
    [
        ("texts", "caption", ["T: one", "T: two", "T: three"]),
        ("pairs", "caption", ["T: one\ntwo"]),
        ("pairs", "neighbours", ["T: one\n\ntwo"]),
        ("samples", "caption", ["T: one\n[image 1]\ntwo", "T: three"]),
    ],
)
def test_what_is_asked_about_is_an_image_its_texts_a_text_or_a_sample(of, text, prompts, tmp_path):
    with ChatServer(lambda body: reply("3")) as server:
        signal = make(server.endpoint, of=of, text=text, prompt="T: {text}", answer={"good": "1-5"})
        count, scores, _ = ask(tmp_path, signal, [["one", 0, "two"], ["three"]])
    found = sorted(read_prompt(body).partition("\n\nAnswer with")[0] for body in server.bodies())
    assert found == sorted(prompts)
    assert count.kept == len(prompts)
    assert set(scores["rating_good"]) == {3.0}
    assert sum(len(read_pictures(body)) for body in server.bodies()) == (of in ("pairs", "samples"))


def test_the_same_content_is_asked_once(tmp_path):
    with ChatServer(lambda body: later(0.05, rate(body))) as server:
        signal = make(server.endpoint, of="texts", prompt="{text} {form}")
        count, scores, answers = ask(tmp_path, signal, [["a", "b"], ["a"], ["b", "a", "c"]])
    assert len(server.bodies()) == 3
    assert count.kept == 6
    texts, values = ("a", "b", "a", "b", "a", "c"), scores["rating_relevance"].to_list()
    by_text = dict(zip(texts, values, strict=True))
    assert [by_text[text] for text in texts] == values
    assert len({one.answer.request for one in answers}) == 3


def test_no_more_requests_are_on_their_way_than_concurrency_says(tmp_path):
    lock, now, most = threading.Lock(), [0], [0]

    def slow(body):
        def answer(visit):
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            visit.pause(0.03)
            with lock:
                now[0] -= 1
            rate(body)(visit)

        return answer

    with ChatServer(slow) as server:
        signal = make(server.endpoint, of="texts", prompt="{text}", concurrency=4)
        ask(tmp_path, signal, [[f"text {n}" for n in range(24)]])
    assert most[0] == 4


def test_parameters_of_a_recipe_are_sent_and_null_leaves_one_out(tmp_path):
    with ChatServer() as server:
        more = {"max_tokens": None, "max_completion_tokens": 9, "top_p": 0.5, "response_format": None}
        ask(tmp_path, make(server.endpoint, parameters=more), [[0]])
    (body,) = server.bodies()
    assert body.keys() == {"model", "messages", "temperature", "seed", "max_completion_tokens", "top_p"}


def test_a_server_that_takes_no_schema_is_asked_without(tmp_path):
    def decide(body):
        return refuse(400, "response_format is not supported") if "response_format" in body else rate(body)

    with ChatServer(decide) as server:
        count, _, _ = ask(tmp_path, make(server.endpoint), [[n] for n in range(40)])
    assert count.kept == 40
    assert sum("response_format" in body for body in server.bodies()) <= 16


# -- answers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('{"relevance": 4, "clarity": 2}', (4, 2)),
        ('Sure!\n```json\n{"clarity": "2", "relevance": 4.0, "why": "x"}\n```', (4, 2)),
        ('<think>{"relevance": 1, "clarity": 1} no</think> {"relevance": 5, "clarity": 3}', (5, 3)),
        ('{"relevance": 6, "clarity": 2}', None),
        ('{"relevance": 4.5, "clarity": 2}', None),
        ('{"relevance": true, "clarity": 2}', None),
        ('{"relevance": 4}', None),
        ('{"relevance": NaN, "clarity": 2}', None),
        ("4", None),
        ("{" * 5000, None),
        ('{"a":' * 4000, None),
        ("", None),
    ],
)
def test_ratings_are_read_where_they_stand_and_only_on_their_scales(content, found):
    scales = {"relevance": Scale.parse("1-5"), "clarity": Scale.parse("1-5")}
    assert read_ratings(content, scales) == found


def test_one_scale_takes_a_bare_number_and_decimals_where_it_says_so():
    assert read_ratings(" 4 ", {"good": Scale.parse("1-5")}) == (4,)
    assert read_ratings("0.25", {"good": Scale.parse("0.0-1.0")}) == (0.25,)
    assert read_ratings("0.25", {"good": Scale.parse("0-1")}) is None


def test_a_text_is_stored_as_it_came_with_its_length_as_the_value(tmp_path):
    with ChatServer(lambda body: reply(" A grey square. \n")) as server:
        count, scores, answers = ask(tmp_path, make(server.endpoint, **CAPTION), [[0], ["x", 1]], "caption")
    assert count.kept == 2
    assert [one.answer.text for one in answers] == ["A grey square."] * 2
    assert scores["caption_characters"].to_list() == [14.0, 14.0]
    assert all("response_format" not in body for body in server.bodies())


def test_what_is_not_of_the_form_is_asked_again_and_shown_to_the_model(tmp_path):
    asked = []

    def decide(body):
        asked.append(body)
        return reply("I like it.") if len(body["messages"]) == 1 else rate(body)

    with ChatServer(decide) as server:
        count, _, (one,) = ask(tmp_path, make(server.endpoint), [[0]])
    assert count.kept == 1
    assert (one.answer.requests, one.answer.bad, one.answer.input_tokens) == (2, 1, 200)
    assert asked[1]["messages"][1] == {"role": "assistant", "content": "I like it."}
    assert "not of the form" in asked[1]["messages"][2]["content"]


BAD = {
    "prose": reply("I like it."),
    "out of range": reply('{"relevance": 9, "clarity": 1}'),
    "no content": reply(None),
    "cut": reply('{"relevance": 3, "clarity": 1}', finish="length"),
    "no JSON": whole(b"<html>", Content_Type="text/html"),
    "other JSON": whole(b"[1, 2]"),
    "no choices": whole(b'{"choices": []}'),
    "huge": whole(b" " * (5 << 20)),
    "endless": endless,
    "deep": whole(b'{"choices":' + b"[" * 100_000),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_never_has_the_form_is_a_verdict_of_that_thing(kind, tmp_path):
    def decide(body):
        return BAD[kind] if "BAD" in read_prompt(body) else rate(body)

    with ChatServer(decide) as server:
        signal = make(server.endpoint, of="texts", prompt="{text}")
        count, scores, answers = ask(tmp_path, signal, [["good"], ["BAD"], ["fine"]])
    assert (count.kept, count.lost) == (2, {Reason.BAD_ANSWER: 1})
    assert scores["reason"].to_list() == [None, "bad_answer", None]
    assert answers[1].answer.requests == answers[1].answer.bad == 3
    assert answers[1].answer.text is None
    (verdict,) = read_verdicts(tmp_path / "out/rating.verdicts.parquet")
    assert (verdict.sample, verdict.node, verdict.reason) == (1, 0, Reason.BAD_ANSWER)


def test_a_picture_that_the_server_refuses_is_a_verdict_of_that_picture(tmp_path):
    def decide(body):
        return refuse(400, "unsafe picture") if choose_rating(body) == 1 else rate(body)

    with ChatServer(decide) as server:
        count, _, answers = ask(tmp_path, make(server.endpoint), [[n] for n in range(12)])
    lost = [one.answer for one in answers if one.answer.reason]
    assert count.lost == {Reason.HTTP_CLIENT_ERROR: len(lost)}
    assert 0 < len(lost) < 12
    assert all("unsafe picture" in answer.detail for answer in lost)
    assert len(server.bodies()) == 12  # asked once each


# -- a server that fails -----------------------------------------------------------------------------------------------


FAULTS = {
    "429": refuse(429, "slow down", Retry_After="0"),
    "429 until a date": refuse(429, "slow down", Retry_After=formatdate(0, usegmt=True)),
    "500": refuse(500),
    "503 without JSON": whole(b"busy", 503),
    "silent": silent,
    "hang up": hang_up,
    "cut": truncated,
}


@pytest.mark.parametrize("kind", FAULTS)
def test_what_passes_by_itself_is_asked_again(kind, tmp_path):
    with ChatServer() as server:
        server.answers[PATH] = first(3, FAULTS[kind], server.answers[PATH])
        signal = make(server.endpoint, seconds=0.3 if kind == "silent" else 30, concurrency=2, retries=3)
        count, _, answers = ask(tmp_path, signal, [[n] for n in range(4)])
    assert count.kept == 4
    assert sum(one.answer.failures for one in answers) == 3
    assert sum(one.answer.requests for one in answers) == 7


def test_retry_after_holds_all_requests_back(tmp_path, monkeypatch):
    waited = []
    sleep = ask_worker.asyncio.sleep

    async def note(seconds):
        waited.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(ask_worker.asyncio, "sleep", note)
    with ChatServer() as server:
        server.answers[PATH] = first(1, refuse(429, Retry_After="0.2"), server.answers[PATH])  # no form of a header
        ask(tmp_path, make(server.endpoint, concurrency=1), [[0]])
        assert all(seconds <= 0.01 for seconds in waited)
        server.answers[PATH] = first(1, refuse(503, Retry_After="1"), server.answers[PATH])
        (tmp_path / "more").mkdir()
        ask(tmp_path / "more", make(server.endpoint, concurrency=1), [[1]])
    assert any(0.9 < seconds <= 1 for seconds in waited)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("120", 120.0), (formatdate(1030.0, usegmt=True), 30.0), ("soon", None), ("", None), ("-1", None)],
)
def test_retry_after_is_a_number_or_a_date(text, seconds):
    assert read_retry_after(text, 1000.0) == seconds


@pytest.mark.parametrize(
    "answer",
    [refuse(500, "out of order"), hang_up, refuse(429, "quota"), refuse(429, Retry_After="86400")],
    ids=["500", "hang up", "429", "tomorrow"],
)
def test_a_dead_server_is_an_error_and_no_verdict(answer, tmp_path):
    message = r"signals.rating: the server http://.* run the same command again"
    with ChatServer(lambda _: answer) as server, pytest.raises(StoreError, match=message):
        ask(tmp_path, make(server.endpoint, retries=2), [[n] for n in range(30)])
    assert not list((tmp_path / "out").iterdir())


def test_no_server_at_all_is_an_error(tmp_path):
    with ChatServer() as server:
        endpoint = server.endpoint
    with pytest.raises(StoreError, match=f"the server {endpoint} does not answer .ConnectError"):
        ask(tmp_path, make(endpoint, retries=1), [[0]])


def test_what_alone_makes_the_server_fail_is_a_verdict(tmp_path):
    def decide(body):
        return refuse(500, "out of memory") if "BAD" in read_prompt(body) else rate(body)

    with ChatServer(decide) as server:
        signal = make(server.endpoint, of="texts", prompt="{text}", retries=2)
        count, _, answers = ask(tmp_path, signal, [["good"], ["BAD"]])
    assert (count.kept, count.lost) == (1, {Reason.HTTP_SERVER_ERROR: 1})
    assert answers[1].answer.failures == 3


def test_what_takes_too_long_is_a_verdict_where_the_server_answers_others(tmp_path):
    def decide(body):
        return silent if "SLOW" in read_prompt(body) else rate(body)

    with ChatServer(decide) as server:
        signal = make(server.endpoint, of="texts", prompt="{text}", retries=1, seconds=0.4)
        count, _, _ = ask(tmp_path, signal, [["SLOW"], ["good"]])
    assert (count.kept, count.lost) == (1, {Reason.TIMED_OUT: 1})


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (refuse(401, "bad key"), "does not answer for the model 'judge': HTTP 401"),
        (refuse(404, "no such model"), "HTTP 404 .*no such model.*see to `endpoint`, `model` and `api_key`"),
        (refuse(402), "HTTP 402"),
        (moved("http://127.0.0.1:1/v1/chat/completions", 307), "HTTP 307 .*redirects are not followed"),
    ],
    ids=["401", "404", "402", "redirect"],
)
def test_wrong_settings_end_the_build_at_once(answer, message, tmp_path):
    with ChatServer(lambda _: answer) as server, pytest.raises(RecipeError, match=message):
        ask(tmp_path, make(server.endpoint, concurrency=1), [[n] for n in range(30)])
    assert len(server.bodies()) == 1


@pytest.mark.parametrize("answer", [reply("nothing"), refuse(400, "no pictures here")], ids=["form", "refused"])
def test_a_server_that_never_answers_as_asked_costs_no_thousands_of_requests(answer, tmp_path):
    message = "of the first 32 things that were asked about, none was answered"
    with ChatServer(lambda _: answer) as server, pytest.raises(RecipeError, match=message):
        ask(tmp_path, make(server.endpoint, concurrency=1, again=0), [[n, n] for n in range(60)])
    assert len(server.bodies()) == 32


# -- recipes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "What is {txt}?"}, "prompt: {txt} is no placeholder; did you mean 'text'"),
        ({"prompt": "What is {text!r}?", "of": "texts"}, "{text} is no placeholder"),
        ({"prompt": "What is {text.x}?", "of": "texts"}, "{text.x} is no placeholder"),
        ({"prompt": "Is {this"}, "write braces that are meant as {{"),
        ({"prompt": "Rate {text}."}, "of an image alone there is no {text}; with `of: pairs`"),
        ({"prompt": "Rate it.", "of": "texts"}, "does not say where the text goes"),
        ({"prompt": "Write {form}.", "answer": "text"}, "of an answer that is a text there is no {form}"),
        ({"answer": {"good": "5-1"}}, "'5-1' is no scale; write the least and the largest"),
        ({"answer": {"good": 5}}, "'5' is no scale"),
        ({"answer": {"Good one": "1-5"}}, "'Good one' is to name a column"),
        ({"answer": "ratings"}, "answer: give `text`, or a scale for each rating"),
        ({"answer": {}}, "answer: give `text`"),
        ({"endpoint": "ftp://x/v1"}, "endpoint: is no address of http or https"),
        ({"endpoint": "http://x:port/v1"}, "endpoint: is no address"),
        ({"concurrency": 0}, "concurrency"),
    ],
)
def test_what_cannot_be_asked_is_said_before_any_work(changes, message):
    import re

    with pytest.raises(RecipeError, match=re.escape(message)):
        make(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"api_key": KEY},
        {"api_key": {"env": KEY}},
        {"api_key": {"key": KEY}},
        {"api_key": [KEY]},
        {"api_key": {"env": [KEY]}},
        {"endpoint": f"https://user:{KEY}@example.org/v1"},
    ],
)
def test_a_key_in_a_recipe_is_refused_and_not_repeated(changes):
    with pytest.raises(RecipeError) as refused:
        make(**changes)
    assert "api_key" in str(refused.value)
    assert KEY not in str(refused.value)


def test_the_key_of_a_step_knows_what_is_asked_and_not_where():
    key = make_key(ScoreSignal("a", make()), {})
    running = {"concurrency": 3, "retries": 1, "seconds": 5, "again": 0, "price": {"input": 1, "output": 2}}
    assert make_key(ScoreSignal("a", make("http://other/v1", api_key={"env": "A"}, **running)), {}) == key
    for change in ({"model": "m"}, {"prompt": "p"}, {"seed": 1}, {"longest": 99}, {"parameters": {"top_p": 1}}):
        assert make_key(ScoreSignal("a", make(**change)), {}) != key


def test_the_key_is_sent_and_stands_in_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with ChatServer(lambda _: refuse(401, f"wrong key {KEY}")) as server:
        signal = make(server.endpoint, api_key={"env": "JUDGE_KEY"})
        with pytest.raises(RecipeError, match=r"wrong key \*\*\*") as refused:
            ask(tmp_path, signal, [[0]])
    assert KEY not in "".join(traceback.format_exception(refused.value)) + repr(signal)
    (visit,) = server.asked(PATH)
    assert visit.headers["Authorization"] == f"Bearer {KEY}"
    monkeypatch.delenv("JUDGE_KEY")
    (tmp_path / "unset").mkdir()
    with pytest.raises(RecipeError, match="environment variable JUDGE_KEY is not set"):
        ask(tmp_path / "unset", signal, [[0]])


def test_no_proxy_of_the_environment_is_asked(tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with ChatServer() as server:
        assert ask(tmp_path, make(server.endpoint), [[0]])[0].kept == 1


def test_what_was_asked_stands_beside_the_values(tmp_path):
    with ChatServer() as server:
        ask(tmp_path, make(server.endpoint), [[0]])
        port = str(server.port)
    text = (tmp_path / "out/rating.model.json").read_text()
    about = json.loads(text)
    assert (about["model"], about["devices"], about["kind"]) == ("judge", [{"model": "served-model"}], "ask")
    assert port not in text
