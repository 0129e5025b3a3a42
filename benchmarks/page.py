"""How long the page of statistics takes to make, open and search in a browser: `python -m benchmarks.page DIR`.

Makes the page of a run, fills its index up to 20,000 samples with copies of its own under other rows and other words, opens it in headless
Chromium several times, and types into its search field. Needs `pip install playwright` and a Chromium: Debian's chromium-headless-shell, or
playwright's own. `--shots FOLDER` leaves screenshots to look at.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from vlmill.mixtures.page import render_mixture_page
from vlmill.pipeline.page import embed_json
from vlmill.pipeline.recipe.lock import read_locked_recipe
from vlmill.train.settings import read_training_settings

DATA = re.compile(r'(<script type="application/json" id="data">)(.*?)(</script>)', re.DOTALL)
TRIES = 5
SEARCHES = ("a", "the", "12", "no such words")


def filled(html: str, samples: int) -> str:
    """The page with an index of `samples`."""
    found = DATA.search(html)
    assert found is not None
    data = json.loads(found[2])
    rows, own = data["index"]["rows"], random.Random(0)
    have = len(rows["source"])
    for number in range(have, samples):
        for values in rows.values():
            values.append(values[number - have])
        words = rows["text"][-1].split()
        own.shuffle(words)
        rows["text"][-1] = " ".join(words)
        rows["row"][-1] += 10_000 * (number // have)
        for values in data["index"]["tokens"]:
            values.append(values[number - have])
    return html[: found.start(2)] + str(embed_json(data)) + html[found.end(2) :]


def measured(file: Path, browser: str | None, shots: Path | None) -> dict[str, Any]:
    """Milliseconds until everything is drawn, and of searches; the heap in MB; what the browser complained of."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - no dependency of the project

    complaints: list[str] = []
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        opened, drawn = [], []
        for _ in range(TRIES):
            tab = chromium.new_page(viewport={"width": 1280, "height": 900})
            tab.on("pageerror", lambda error: complaints.append(str(error)))
            tab.on(
                "request",
                lambda request: (
                    None if request.url.startswith(("file:", "data:", "blob:")) else complaints.append(request.url)
                ),
            )
            started = time.perf_counter()
            tab.goto(file.as_uri(), wait_until="commit")
            tab.wait_for_function("document.documentElement.dataset.searched")
            opened.append((time.perf_counter() - started) * 1000)
            tab.wait_for_function("document.documentElement.dataset.ready")
            drawn.append((time.perf_counter() - started) * 1000)
            if len(drawn) < TRIES:
                tab.close()
        searches = {}
        for words in SEARCHES:
            tab.fill("input[name=words]", words)
            searches[words] = float(tab.evaluate("document.documentElement.dataset.searched"))
        if shots is not None:
            _shoot(tab, shots)
        heap = tab.evaluate("performance.memory ? performance.memory.usedJSHeapSize / 1e6 : 0")
        chromium.close()
    return {
        "searchable_ms": round(statistics.median(opened)),
        "drawn_ms": round(statistics.median(drawn)),
        "drawn_most_ms": round(max(drawn)),
        "search_ms": searches,
        "heap_mb": round(heap, 1),
        "complaints": complaints,
    }


def _shoot(tab: Any, folder: Path) -> None:
    """A screenshot of every section, and one of a telephone."""
    folder.mkdir(parents=True, exist_ok=True)
    tab.fill("input[name=words]", "")
    tab.add_style_tag(content="nav, form { position: static !important }")
    for card in tab.query_selector_all(".card")[:4]:
        card.screenshot(path=str(folder / f"card-{len(list(folder.glob('card-*')))}.png"))
    for section in tab.query_selector_all("section"):
        section.screenshot(path=str(folder / f"{section.get_attribute('id')}.png"))
    tab.screenshot(path=str(folder / "top.png"))
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.screenshot(path=str(folder / "narrow.png"))


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a build")
    parser.add_argument("--samples", type=int, default=20_000, help="in the index")
    parser.add_argument("--browser", default=shutil.which("chromium-headless-shell") or shutil.which("chromium"))
    parser.add_argument("--shots", type=Path, help="a folder for screenshots")
    options = parser.parse_args()
    started = time.process_time()
    html = render_mixture_page(
        options.run,
        None,
        {stage.name: read_training_settings(stage).loss for stage in read_locked_recipe(options.run).stages},
    )
    made = time.process_time() - started
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(filled(html, options.samples), encoding="utf-8")
        result = {"samples": options.samples, "made_s": round(made, 2), "file_mb": round(file.stat().st_size / 1e6, 2)}
        print(json.dumps(result | measured(file, options.browser, options.shots)))


if __name__ == "__main__":
    main()
