"""What is opted out is not asked for: no request is made, the books say so, and what leaves a list can come."""

from __future__ import annotations

import gzip

import pytest

from tests.helpers.servers import Web, moved, picture, whole
from tests.helpers.small import RECIPE, prose, vlmill, write_recipe
from tests.helpers.upstream import obelics
from tests.helpers.upstream import picture as large
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.keys import hash_file
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.sample import (
    IMAGES,
    Node,
    Sample,
    SampleId,
    read_rows,
    write_rows,
    write_samples,
)
from vlmill.pipeline.engine.store import File, Task
from vlmill.pipeline.fetch import Fetch, Retry
from vlmill.pipeline.fetch.opt_outs import LISTED, LISTED_PAGES
from vlmill.pipeline.reports.funnel import find_steps_by_reason, read_funnel
from vlmill.pipeline.reports.what_if import answer_what_if
from vlmill.pipeline.takedown.rules import LIST, parse_rules


@pytest.fixture
def web():
    with Web() as server:
        yield server


@pytest.fixture
def step(web):
    """A fetch that asks the server for everything under these two hosts."""
    mirrors = {"http://a.test/": web.url("/a/"), "http://b.test/": web.url("/b/")}
    return Fetch(mirrors=mirrors, timeout_s=2, deadline_s=5, retries=0, threads=4)


def lists(folder, **kinds):
    """Lists as a step is given them."""
    inputs = {}
    for kind, entries in kinds.items():
        inputs[f"opt_out.{kind}.0.list"] = folder / f"{kind}.txt"
        (folder / f"{kind}.txt").write_text("\n".join(entries) + "\n", encoding="utf-8")
    return inputs


def run(step, folder, inputs, urls, documents=()):
    """The rows and the books of a step; documents are pairs of an address and the numbers of their images."""
    empty = dict.fromkeys(IMAGES.names)
    rows = [url if isinstance(url, dict) else {"url": url} for url in urls]
    write_rows(folder / "images.parquet", IMAGES, ({**empty, **row, "image": n} for n, row in enumerate(rows)))
    samples = [
        Sample(SampleId("web", "a", row), tuple(Node("image", image=image) for image in images), url=page)
        for row, (page, images) in enumerate(documents)
    ]
    write_samples(folder / "samples.parquet", samples)
    tables = {name: folder / name for name in ("images.parquet", "samples.parquet")}
    (out := folder / f"out-{len(list(folder.iterdir()))}").mkdir()
    counts = step.run({**tables, **inputs}, out)
    (left,) = (path for path in out.iterdir() if path.name != "host_counts.parquet")
    return list(read_rows(left)), counts


def test_no_request_is_made_for_what_a_list_names(web, step, tmp_path):
    web.answers.update({f"/{host}/{n}.png": whole(picture(n)) for host in "ab" for n in range(4)})
    inputs = lists(tmp_path, domains=["b.test"], urls=["https://www.a.test/1.png#top"])
    rows, counts = run(step, tmp_path, inputs, [f"http://{host}.test/{n}.png" for host in "ab" for n in range(2)])
    assert [visit.path for visit in web.asked()] == ["/a/0.png"]
    assert [(row["reason"], row["detail"]) for row in rows] == [(None, None), *[("opt_out_list", LISTED)] * 3]
    assert counts["fetched"].to_json() == {"in": 4, "kept": 1, "dropped": {"opt_out_list": 3}, "failed": {}}


def test_what_only_listed_documents_show_is_not_asked_for(web, step, tmp_path):
    web.answers.update({f"/a/{n}.png": whole(picture(n)) for n in range(3)})
    documents = [("https://out.test/page", [0, 1]), ("https://in.test/page", [1, 2])]
    rows, _ = run(
        step, tmp_path, lists(tmp_path, domains=["out.test"]), [f"http://a.test/{n}.png" for n in range(3)], documents
    )
    assert sorted(visit.path for visit in web.asked()) == ["/a/1.png", "/a/2.png"]
    assert [(row["reason"], row["detail"]) for row in rows] == [
        ("opt_out_list", LISTED_PAGES),
        (None, None),
        (None, None),
    ]


def test_no_redirect_is_followed_to_what_a_list_names(web, step, tmp_path):
    web.answers["/a/0.png"], web.answers["/a/1.png"] = moved("http://b.test/0.png"), moved("http://b.test/1.png")
    web.answers.update({f"/b/{n}.png": whole(picture(n)) for n in range(2)})
    inputs = lists(tmp_path, urls=["http://b.test/1.png"])
    rows, _ = run(step, tmp_path, inputs, ["http://a.test/0.png", "http://a.test/1.png"])
    assert [row["reason"] for row in rows] == [None, "opt_out_list"]
    assert rows[1]["detail"] == "redirected to http://b.test/1.png, which is on a list of opt-outs"
    assert web.asked("/b/1.png") == []


def test_however_an_address_is_encoded_it_is_the_same(web, step, tmp_path):
    rows, _ = run(step, tmp_path, lists(tmp_path, urls=["http://a.test/ü b.png"]), ["http://a.test/%C3%BC%20b.png"])
    assert (web.asked(), rows[0]["reason"]) == ([], "opt_out_list")


def test_a_retry_asks_for_what_has_left_the_lists_and_for_nothing_that_stands_there(web, step, tmp_path):
    web.answers.update({f"/{host}/{n}.png": whole(picture(n)) for host in "ab" for n in range(2)})
    before = [
        {"url": "http://a.test/0.png", "reason": Reason.OPT_OUT_LIST},
        {"url": "http://b.test/0.png", "reason": Reason.OPT_OUT_LIST},
        {"url": "http://a.test/1.png", "reason": Reason.TIMED_OUT},
        {"url": "http://b.test/1.png", "reason": Reason.TIMED_OUT},
    ]
    rows, counts = run(Retry(step), tmp_path, lists(tmp_path, domains=["b.test"]), before)
    assert sorted(visit.path for visit in web.asked()) == ["/a/0.png", "/a/1.png"]
    assert [row["image"] for row in rows] == [0, 2]
    assert counts["retried"].to_json() == {"in": 2, "kept": 2, "dropped": {}, "failed": {}}


def test_an_entry_that_is_none_stops_the_fetch_before_the_first_request(web, step, tmp_path):
    with pytest.raises(RecipeError, match=r"domains\.txt, line 1: 'http://b\.test/': a domain is a name"):
        run(step, tmp_path, lists(tmp_path, domains=["http://b.test/"]), ["http://a.test/0.png"])
    assert web.asked() == []


def test_a_list_that_is_no_text_stops_the_fetch_too(web, step, tmp_path):
    inputs = lists(tmp_path, domains=["b.test"])
    (tmp_path / "domains.txt").write_bytes(gzip.compress(b"b.test\n"))
    with pytest.raises(RecipeError, match=r"domains\.txt is no UTF-8 text .*not compressed"):
        run(step, tmp_path, inputs, ["http://b.test/0.png"])
    assert web.asked() == []


def test_a_list_of_takedowns_holds_however_it_is_spelled(web, step, tmp_path):
    """Somebody may have written it by hand."""
    (tmp_path / LIST).write_text("domains: [B.Test.]\nurls: ['HTTP://A.test:80/1.png#top']\n")
    urls = ["http://b.test/0.png", "http://a.test/1.png"]
    rows, _ = run(step, tmp_path, {LIST: tmp_path / LIST}, urls)
    assert web.asked() == []
    assert [row["reason"] for row in rows] == ["opt_out_list"] * 2


def test_lists_are_given_to_a_fetch_and_are_not_in_its_key(step, tmp_path):
    (tmp_path / "list").write_text("b.test\n")
    images = File("images.parquet", "images.parquet", "0" * 64, 0)
    given = File("opt_out.domains.0.list", "list", hash_file(tmp_path / "list"), 7)
    for impure in (step, Retry(step)):
        task = Task.over({file.name: file for file in (images, given)}, "steps/web/fetch", "0", impure)
        assert set(task.inputs) == {"images.parquet"}
        assert set(task.side_inputs) == {"opt_out.domains.0.list"}
        assert task.key() == Task.over({images.name: images}, "steps/web/fetch", "0", impure).key()


# -- a run -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def world(web, tmp_path):
    """A recipe of documents of which one image in three stands on a list, and the server that its images come from."""
    web.answers.update({f"/{n}.png": whole(large(n, (160, 120))) for n in range(6)})
    hosts = ("in.test", "cdn.out.test", "in.test")
    documents = [[prose(n), f"http://{hosts[n % 3]}/{n}.png", prose(100 + n)] for n in range(6)]
    source = {
        **RECIPE["sources"]["web"],
        "serve": {},
        "fetch": {"mirrors": {f"http://{host}/": web.url("/") for host in set(hosts)}},
    }
    (tmp_path / "out.txt").write_text("out.test\n")
    recipe = write_recipe(
        tmp_path,
        sources={"web": source},
        filters=[{"shape": {"max_ratio": 10}}, {"opt_out": {"domains": ["out.txt"]}}],
        dedupe={"buckets": 1},
        stages=[],
    )
    obelics(tmp_path / "web.parquet", documents)
    return web, recipe, tmp_path / "run"


def books(root):
    return {level: read_funnel(root)["web"][level] for level in ("samples", "images")}


def test_a_build_never_asks_for_what_is_listed_and_its_books_say_so(world, capsys):
    web, recipe, root = world
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    assert sorted(visit.path for visit in web.asked()) == ["/0.png", "/2.png", "/3.png", "/5.png"]
    assert books(root)["images"] == {"in": 6, "kept": 4, "dropped": {"opt_out_list": 2}, "failed": {}}
    assert find_steps_by_reason(root, "web")["opt_out_list"] == ["fetch", "opt_out"]
    assert vlmill("verify", root) == 0
    capsys.readouterr()
    assert vlmill("report", root, "--reason", "opt_out_list", "--examples", 5) == 0
    assert capsys.readouterr().out.count("http://cdn.out.test/") == 2
    assert vlmill("trace", root, "web/web.parquet#1") == 0
    assert "- opt_out_list     image opt_out_list http://cdn.out.test/1.png" in capsys.readouterr().out


def test_what_leaves_a_list_comes_with_a_retry_and_what_was_fetched_is_not_asked_for_again(world, capsys):
    web, recipe, root = world
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    asked = len(web.asked())
    (recipe.parent / "out.txt").write_text("nobody.test\nin.test\n")
    _, answer = answer_what_if(str(recipe), root, {}, [])
    assert answer.sources["web"]["images"].then == 0
    assert answer.notes == [
        (
            "2 images were on a list of opt-outs and never asked for; a build with --retry-failed asks for those "
            "that no list names any more"
        )
    ]
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    assert books(root)["images"] == {"in": 6, "kept": 0, "dropped": {"opt_out_list": 6}, "failed": {}}
    (recipe.parent / "out.txt").write_text("nobody.test\n")
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    assert books(root)["images"] == {"in": 6, "kept": 4, "dropped": {"opt_out_list": 2}, "failed": {}}
    assert len(web.asked()) == asked
    assert vlmill("build", recipe, "--out", root, "--workers", 0, "--retry-failed") == 0
    assert sorted(visit.path for visit in web.asked()[asked:]) == ["/1.png", "/4.png"]
    assert books(root)["images"] == {"in": 6, "kept": 6, "dropped": {}, "failed": {}}
    assert vlmill("verify", root) == 0


def test_of_what_was_taken_down_not_even_a_retry_asks_for_what_was_listed_then(world, capsys):
    web, recipe, root = world
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    assert vlmill("takedown", root, "--id", "web/web.parquet#1", "--workers", 0) == 0
    assert "with the addresses of 1 images that could not be fetched" in capsys.readouterr().out
    assert vlmill("verify", root) == 0
    (recipe.parent / "out.txt").write_text("nobody.test\n")
    assert vlmill("build", recipe, "--out", root, "--workers", 0, "--retry-failed") == 0
    assert web.asked("/1.png") == []
    assert len(web.asked("/4.png")) == 1
    assert vlmill("verify", root) == 0


def test_what_was_taken_down_by_address_is_not_asked_for_by_any_other_folder(world):
    web, recipe, root = world
    (recipe.parent / "out.txt").write_text("nobody.test\n")
    root.mkdir()
    (root / LIST).write_text(parse_rules(["http://in.test/3.png"], [], [], ["out.test"]).to_yaml())
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 0
    assert sorted(visit.path for visit in web.asked()) == ["/0.png", "/2.png", "/5.png"]
    assert books(root)["images"] == {"in": 6, "kept": 3, "dropped": {"taken_down": 3}, "failed": {}}
    assert vlmill("verify", root) == 0


def test_a_list_that_is_none_is_named_before_anything_is_read(world, capsys):
    web, recipe, root = world
    (recipe.parent / "out.txt").write_text("# of today\nhttp://out.test/\n")
    assert vlmill("build", recipe, "--out", root, "--workers", 0) == 1
    assert "/out.txt, line 2: 'http://out.test/': a domain is a name" in capsys.readouterr().err
    assert not list(root.glob("steps/*"))
    assert web.asked() == []
