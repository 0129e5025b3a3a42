"""Every view of `vlmill explore` in a browser: `python -m benchmarks.explore_views ADDRESS --out FOLDER`.

ADDRESS is what `vlmill explore DIR` prints. Needs the package playwright and a Chromium. Visits each view at 1280 and
420 px, light and dark, uses it (a brush, a slider, a share, a sample, keys), and writes a picture of each. Ends with 1
where the console has an error, a request leaves the machine or fails, or a page is wider than its window.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

VIEWS = ("overview", "samples", "thresholds", "duplicates", "mixtures", "build")
WIDTHS = (1280, 420)
HOSTILE = "document.querySelectorAll('#view script, #view iframe, #view [onclick], #view [onerror]').length"


def use_view(page: Any, view: str) -> None:
    """What a person does in a view."""
    if view == "samples":
        plot = page.locator(".histogram").first
        if plot.is_visible():
            box = plot.bounding_box()
            page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 20)
            page.mouse.down()
            page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 20)
            page.mouse.up()
    if view == "thresholds":
        page.wait_for_selector(".threshold", timeout=60_000)
        page.locator(".slide").evaluate("(e) => { e.value = 640; e.dispatchEvent(new Event('input')); }")
    if view == "mixtures" and page.locator(".mixture input[type=number]").count():
        number = page.locator(".mixture input[type=number]").first
        number.fill("0.3")
        page.keyboard.press("Escape")  # out of the field, so that keys are commands again
    page.wait_for_timeout(900)


def visit_views(browser: Any, address: str, out: Path) -> Iterator[str]:
    """Visit everything; yields what is wrong."""
    host = urlsplit(address).netloc
    for theme in ("light", "dark"):
        for width in WIDTHS:
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
            page, said = context.new_page(), list[str]()
            page.on(
                "console", lambda message, said=said: said.append(message.text) if message.type == "error" else None
            )
            page.on("pageerror", lambda error, said=said: said.append(str(error)))
            page.on(
                "request",
                lambda request, said=said: (
                    said.append(f"asks for {request.url}")
                    if not request.url.startswith((f"http://{host}/", "data:"))
                    else None
                ),
            )
            page.goto(address)
            page.wait_for_selector("html[data-ready=overview]")
            for place, view in enumerate(VIEWS):
                page.keyboard.press(str(place + 1))
                page.wait_for_selector(f"html[data-ready={view}]", timeout=60_000)
                use_view(page, view)
                name = f"{view}-{width}-{theme}"
                page.screenshot(path=out / f"{name}.png", full_page=view in {"overview", "mixtures", "build"})
                if page.evaluate("document.documentElement.scrollWidth") > width:
                    yield f"{name}: wider than its window"
                if page.evaluate(HOSTILE):
                    yield f"{name}: markup that is not ours"
            yield from open_sample(page, out / f"sample-{width}-{theme}.png")
            yield from (f"{width} {theme}: {line}" for line in said)
            context.close()


def open_sample(page: Any, path: Path) -> Iterator[str]:
    """Open a sample with the keyboard, go to the next one, close it."""
    page.keyboard.press("2")
    page.wait_for_selector("html[data-ready=samples]")
    page.wait_for_selector(".grid .sample")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail .node")
    before = page.locator("#detail .detail-head .mono").inner_text()
    page.keyboard.press("j")
    page.wait_for_timeout(1500)
    if page.locator("#detail .detail-head .mono").inner_text() == before:
        yield f"{path.stem}: j does not go on"
    page.screenshot(path=path)
    page.keyboard.press("Escape")
    page.wait_for_timeout(100)
    if page.locator("#detail[open]").count():
        yield f"{path.stem}: Escape does not close it"


def main() -> None:
    """Visit, and say what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - an extra that nothing else needs

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=arguments.chromium)
        wrong = list(visit_views(browser, arguments.address, arguments.out))
        browser.close()
    for line in wrong:
        print(line)
    print(f"{len(list(arguments.out.glob('*.png')))} pictures in {arguments.out}, {len(wrong)} faults")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
