"""What a command shows while it works: rates from within a task, on a terminal and elsewhere, and nothing in files."""

from __future__ import annotations

import io
import json
from collections import Counter
from contextlib import contextmanager

import pytest
from rich.console import Console

from tests.helpers.small import vlmill, write_recipe
from vlmill.pipeline.core.meter import METER, Meter, note_work
from vlmill.pipeline.core.progress import ProgressBars, Rates, format_rates
from vlmill.pipeline.engine import executor
from vlmill.pipeline.engine.executor import Inline
from vlmill.pipeline.engine.once_it_pays import OnceItPays
from vlmill.pipeline.fetch.process import _note_answers


def test_recent_rates_are_those_of_the_last_seconds_and_whole_ones_those_of_the_phase():
    rates = Rates(now=100.0)
    for second in range(1, 31):
        rates.add({"rows": 50 if second <= 20 else 2, "failed": 0}, 100.0 + second)
    assert rates.measure_recent(130.0) == {"rows": pytest.approx(2.0)}
    assert rates.measure_whole(130.0) == {"rows": pytest.approx(1020 / 30)}
    assert rates.measure_recent(135.0)["rows"] == pytest.approx(1.0), "five of ten seconds had rows"
    assert rates.measure_recent(190.0)["rows"] == 0.0


def test_rates_are_in_one_order_and_in_units_that_can_be_read():
    rates = {"dropped": 0.44, "bytes": 12_400_000.0, "failed": 3.08, "rows": 1203.4, "images": 310.0}
    assert format_rates(rates) == "1,203 rows/s, 310 images/s, 12.4 MB/s, 3.1 failed/s, 0.4 dropped/s"
    assert format_rates({"bytes": 4_560.0}) == "4.6 kB/s"
    assert format_rates({}) == ""


def test_a_line_of_large_rates_fits_a_terminal_of_80_columns():
    assert len(format_rates(dict.fromkeys(("rows", "images", "failed", "dropped"), 99_999.0) | {"bytes": 9e9})) <= 80


def shown(monkeypatch, *, terminal):
    """What is shown of a phase of two tasks, of which one notes work and none is done before it ends."""
    monkeypatch.setattr(ProgressBars, "EVERY", 0.0)
    monkeypatch.setattr(Meter, "EVERY", 0.0)
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=80, _environ={"TERM": "xterm"})
    with ProgressBars(console) as bars:
        bars.phase("curate", 2)
        for _ in range(4):
            note_work(rows=3, images=1, size=5000, failed=1, dropped=1)
        if bars.bars:
            bars.bars.refresh()
        within = file.getvalue()
        bars.done()
        bars.done()
        bars.phase("dedupe", 1)
        bars.done()
    return within, file.getvalue()


def test_plain_lines_say_from_within_a_task_how_fast_it_goes(monkeypatch):
    within, whole = shown(monkeypatch, terminal=False)
    assert [line.partition(" tasks")[0] for line in within.splitlines()] == ["curate: 0 of 2"] * 4
    assert all(f"{kind}/s" in within.splitlines()[-1] for kind in ("rows", "images", "B", "failed", "dropped"))
    last = whole.splitlines()
    assert last[-2].startswith("curate: 2 of 2 tasks in ")
    assert "dropped/s" in last[-2]
    assert last[-1].startswith("dedupe: 1 of 1 tasks in ")
    assert "rows/s" not in last[-1], "rates are of their phase"


def test_a_terminal_shows_rates_below_the_bar_from_within_a_task(monkeypatch):
    within, whole = shown(monkeypatch, terminal=True)
    assert "0/2" in within
    assert "rows/s" in within
    assert "1/1" in whole


def test_notes_without_a_listener_are_forgotten():
    note_work(rows=7)
    found = Counter()
    with METER.told_to(found.update):
        note_work(images=2)
    assert +found == {"images": 2}


def test_steps_note_what_their_funnel_counts(tmp_path, capsys):
    recipe, found = write_recipe(tmp_path), Counter()
    before = METER.told_to

    def told_to(listener, *more):
        return before(lambda work: (found.update(work), listener(work)), *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(METER, "told_to", told_to)
        assert vlmill("build", recipe, "--out", tmp_path / "run", "--workers", 0, "--until", "curate") == 0
    capsys.readouterr()
    manifests = [
        (path.parent.name, json.loads(path.read_bytes())["counts"])
        for path in (tmp_path / "run" / "steps").glob("*/*/manifest.json")
    ]
    assert found["rows"] == sum(counts["rows"]["in"] for step, counts in manifests if step == "read")
    images = {"fetch": "fetched", "image_stats": "images_measured"}
    assert found["images"] == sum(counts[images[step]]["in"] for step, counts in manifests if step in images)
    lost = {"read": "pages", **images}
    assert found["failed"] == sum(
        sum(counts[lost[step]]["failed"].values()) for step, counts in manifests if step in lost
    )
    assert found["dropped"] > 0
    assert found["bytes"] > 0


def test_answers_of_a_download_are_noted_once_and_as_they_come(tmp_path):
    path, found = tmp_path / "answers.jsonl", Counter()
    assert _note_answers(path, 0) == 0
    with METER.told_to(found.update):
        place = 0
        for piece in (
            '{"key": 0, "failure": null, "size": 40}\n{"key": 1, "fai',
            'lure": "x: y", "size": 0}\n',
            "{}\n",
        ):
            with path.open("a") as file:
                file.write(piece)
            place = _note_answers(path, place)
    assert +found == {"images": 2, "bytes": 40, "failed": 1}
    assert place == path.stat().st_size


def test_what_is_left_falls_while_a_task_takes_long_and_is_not_said_once_it_is_over(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("vlmill.pipeline.core.progress.time.monotonic", lambda: clock[0])
    console = Console(file=io.StringIO(), width=200)
    bars = ProgressBars(console)
    bars.phase("read", 4)
    clock[0] = 30.0
    bars.done(3)
    for clock[0] in (36.0, 50.0):
        bars.work({})
    lines = console.file.getvalue().splitlines()
    assert [line.partition(" s left")[0].rpartition(" ")[2] for line in lines[:2]] == ["10", "4"]
    assert "left" not in lines[2]


def start_ray(monkeypatch, console):
    """A phase of two tasks: one of 2 s, then Ray starts for 8 s, then one that notes its rows after 6 s."""
    clock = [100.0]
    monkeypatch.setattr("vlmill.pipeline.core.progress.time.monotonic", lambda: clock[0])

    def work_off(seconds):
        clock[0] += seconds
        bars.work({"rows": 10})
        if bars.bars:
            bars.bars.refresh()

    @contextmanager
    def start():
        work_off(0.0)
        clock[0] += 8.0
        yield Inline()

    with ProgressBars(console) as bars:
        bars.phase("read", 5)
        clock[0] += 2.0
        bars.done()
        for _ in OnceItPays(start, 2, at_once=True).each(work_off, [6.0]):
            bars.done()


def test_a_plain_line_says_that_ray_starts_and_its_seconds_do_not_count(monkeypatch):
    console = Console(file=io.StringIO(), width=200)
    start_ray(monkeypatch, console)
    assert console.file.getvalue().splitlines() == [
        "read: starting Ray",
        "read: 1 of 5 tasks in 8.0 s (0.1/s, 2 s left); 2.5 rows/s",
        "read: 2 of 5 tasks in 8.0 s (0.2/s, 12 s left); 2.5 rows/s",
    ]


def test_a_terminal_says_below_the_bar_that_ray_starts_and_no_longer_once_it_has(monkeypatch):
    file = io.StringIO()
    start_ray(monkeypatch, Console(file=file, force_terminal=True, width=80, _environ={"TERM": "xterm"}))
    *_, starts, after = file.getvalue().rpartition("starting Ray")
    assert starts
    assert "rows/s" in after


@pytest.mark.parametrize(
    ("workers", "address", "models", "said"),
    [
        (2, None, True, ["starting Ray"]),
        (None, "10.0.0.1:6379", False, ["joining Ray at 10.0.0.1:6379"]),
        (2, None, False, []),  # it starts once it pays, below a bar
        (0, None, True, []),
    ],
)
def test_where_ray_starts_ahead_of_the_first_bar_a_line_says_so(monkeypatch, workers, address, models, said):
    console = Console(file=io.StringIO(), width=200)

    @contextmanager
    def start(*_, **__):
        console.print("it has")
        yield Inline()

    monkeypatch.setattr(executor, "_open_ray", start)
    with executor.open_executor(workers, address, models=models, console=console):
        found = console.file.getvalue().splitlines()
    assert found == [*said, *(["it has"] if said else [])]
