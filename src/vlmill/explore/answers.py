"""What `vlmill explore` answers at each address (app.py says which): JSON, pictures, and the files of its page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import PurePosixPath
from threading import Lock
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vlmill.explore.bounds import apply_settings, diff_recipes
from vlmill.explore.building import BuildWatch, describe_training
from vlmill.explore.card import describe_sample
from vlmill.explore.crossfilter import Wanted
from vlmill.explore.index import Index
from vlmill.explore.mixing import describe_mixtures, solve_changed
from vlmill.explore.overview import describe_index, describe_run
from vlmill.explore.samples import SIDES
from vlmill.explore.state import Explorer
from vlmill.pipeline.core.errors import StoreError
from vlmill.pipeline.recipe.lock import read_lock
from vlmill.pipeline.reports.what_if import WhatIfAnswer

PAGE = 48
"""Samples in an answer, at most."""
STATIC = {
    "style.css": ("vlmill.pipeline.page", "style.css"),
    "card.css": ("vlmill.mixtures.page", "card.css"),
    "card.js": ("vlmill.mixtures.page", "card.js"),
}
"""Files of the page that lie elsewhere than beside its modules: the components that it shares with pages of files."""
KINDS = {".css": "text/css", ".js": "text/javascript", ".html": "text/html", ".svg": "image/svg+xml"}


class Answers:
    """What is answered at each address. All of it reads."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer, self.build = explorer, BuildWatch(explorer.root)
        self._asking = Lock()

    # -- the page

    def page(self, request: Request) -> Response:
        """The page itself."""
        del request
        return read_static("index.html")

    def static(self, request: Request) -> Response:
        """A style sheet or a module of it."""
        return read_static(request.path_params["name"])

    # -- overview, build, training

    def overview(self, request: Request) -> Response:
        """Figures of the run, from manifests."""
        del request
        return JSONResponse(describe_run(self.explorer.root, self.explorer.open_run().recipe))

    def index(self, request: Request) -> Response:
        """How far the index is; with `again` it is made anew where the run has changed."""
        if "again" in request.query_params:
            self.explorer.begin_index()
        return JSONResponse(self.explorer.describe_index())

    def held(self, request: Request) -> Response:
        """Tokens and licences of what is kept."""
        del request
        return JSONResponse(describe_index(self.explorer.opened.index))

    def building(self, request: Request) -> Response:
        """How far the build is."""
        del request
        return JSONResponse(self.build.describe())

    def training(self, request: Request) -> Response:
        """Curves of losses."""
        del request
        return JSONResponse(describe_training(self.explorer.root))

    # -- samples

    def dimensions(self, request: Request) -> Response:
        """What histograms there are."""
        del request
        opened = self.explorer.opened
        return JSONResponse(
            {
                "dimensions": [one.__dict__ for one in opened.index.dimensions.values()],
                "vectors": opened.finder.list_vectors(),
                "sources": opened.index.sources,
                "licences": opened.index.licences,
                "outcomes": opened.index.outcomes,
            }
        )

    def counts(self, request: Request) -> Response:
        """Counts and histograms of samples that fit."""
        opened = self.explorer.opened
        names = [name for name in request.query_params.get("show", "").split(",") if name in opened.index.dimensions]
        return JSONResponse(opened.filter.count(self._read_wanted(request), tuple(names)))

    def samples(self, request: Request) -> Response:
        """Some samples that fit, a line each."""
        opened, query = self.explorer.opened, request.query_params
        order = query.get("order", "mixed")
        name = order.removeprefix("-")
        if name not in {"mixed", "as read", *opened.index.dimensions}:
            raise StoreError(f"order {order!r} is unknown")
        first, number = read_number(query, "first", 0), min(PAGE, read_number(query, "number", 24))
        found = opened.filter.list_fitting(self._read_wanted(request), order, first, number)
        shown = [name] if name in opened.index.dimensions else []
        return JSONResponse(opened.reader.describe_samples(found, shown))

    def _read_wanted(self, request: Request) -> Wanted:
        opened, query = self.explorer.opened, request.query_params
        index, text = opened.index, query.get("text", "").strip()
        ranges = {}
        for item in query.getlist("range"):
            name, _, bounds = item.rpartition(":")
            least, _, most = bounds.partition("..")
            if name in index.dimensions:
                ranges[name] = (float(least or "-inf"), float(most or "inf"))
        licence = query.get("licence")
        return Wanted(
            sources=tuple(name for name in query.getlist("source") if name in index.sources),
            outcome=query.get("outcome", ""),
            licence=licence if licence in index.licences else None,
            ranges=ranges,
            found=opened.finder.search_texts(text) if text else None,
        )

    def sample(self, request: Request) -> Response:
        """One sample whole."""
        return JSONResponse(describe_sample(self.explorer.opened, self._read_sample(request)))

    def segments(self, request: Request) -> Response:
        """What the trainer sees of a sample."""
        from vlmill.explore.trainer_view import list_segments  # noqa: PLC0415 - takes seconds to import

        return JSONResponse(list_segments(self.explorer.opened, self._read_sample(request)))

    def neighbours(self, request: Request) -> Response:
        """The samples nearest to one."""
        opened, number = self.explorer.opened, self._read_sample(request)
        found = opened.finder.find_neighbours(request.query_params.get("signal", ""), number, 24)
        lines = opened.reader.describe_samples([one.number for one in found])
        return JSONResponse(
            [{**line, "similarity": round(one.similarity, 4)} for line, one in zip(lines, found, strict=True)]
        )

    def find(self, request: Request) -> Response:
        """The number of the sample of an id."""
        return JSONResponse({"number": self.explorer.opened.duplicates.find_sample(request.query_params.get("id", ""))})

    def _read_sample(self, request: Request) -> int:
        number = request.path_params["number"]
        if not 0 <= number < self.explorer.opened.index.size:
            raise StoreError(f"there is no sample {number}; they are numbered to {self.explorer.opened.index.size - 1}")
        return int(number)

    def picture(self, request: Request) -> Response:
        """A picture, drawn small."""
        given, side = request.path_params, read_number(request.query_params, "side", 240)
        if side not in SIDES:
            raise StoreError(f"side {side}: pictures are drawn at {', '.join(map(str, SIDES))}")
        data = self.explorer.opened.reader.draw_picture(given["source"], given["partition"], given["image"], side)
        return Response(data, media_type="image/webp", headers={"cache-control": "private, max-age=3600"})

    # -- thresholds

    def bounds(self, request: Request) -> Response:
        """The bounds that sliders move."""
        del request
        return JSONResponse(self.explorer.opened.sliders.describe_bounds())

    def values(self, request: Request) -> Response:
        """The histogram behind a slider."""
        query, opened = request.query_params, self.explorer.opened
        sources = [name for name in query.getlist("source") if name in opened.index.sources]
        if (dimension := query.get("dimension", "")) not in opened.index.dimensions:
            raise StoreError(f"there is no value {dimension!r}; there are {', '.join(opened.index.dimensions)}")
        return JSONResponse(opened.sliders.count_values(dimension, sources))

    def prepare(self, request: Request) -> Response:
        """How far a slider is prepared."""
        return JSONResponse(self.explorer.opened.sliders.prepare(request.query_params.get("key", "")).__dict__)

    def slide(self, request: Request) -> Response:
        """What a bound keeps at a value, and the samples beside it."""
        opened, query = self.explorer.opened, request.query_params
        found = opened.sliders.answer(
            query.get("key", ""), float(query.get("value", "0")), read_source(query, opened.index)
        )
        for side in ("lost", "kept"):
            lines = opened.reader.describe_nodes(found[side])
            found[side] = lines
        return JSONResponse(found)

    def what_if(self, request: Request) -> Response:
        """What other settings would keep, with duplicates resolved anew; takes seconds to minutes."""
        pairs = [item.partition("=") for item in request.query_params.getlist("set")]
        settings = {key: text for key, _, text in pairs}
        lock = read_lock(self.explorer.root)
        changed = apply_settings(lock, settings)
        with self._asking:
            answer = self.explorer.open_run().what_if(settings)
        return JSONResponse(
            {**describe_answer(answer), "diff": diff_recipes(lock, changed, "filters", "dedupe", "decontaminate")}
        )

    # -- duplicates

    def duplicates(self, request: Request) -> Response:
        """Clusters of duplicates."""
        query = request.query_params
        return JSONResponse(
            self.explorer.opened.duplicates.list_clusters(
                query.get("reason", ""), query.get("order", "largest"), read_number(query, "first", 0), 40
            )
        )

    def cluster(self, request: Request) -> Response:
        """One cluster."""
        return JSONResponse(self.explorer.opened.duplicates.read_cluster(request.query_params.get("keeper", "")))

    def compare(self, request: Request) -> Response:
        """Two samples side by side."""
        query, size = request.query_params, self.explorer.opened.index.size
        one, other = read_number(query, "one", 0), read_number(query, "other", 0)
        if not (0 <= one < size and 0 <= other < size):
            raise StoreError(f"samples are numbered from 0 to {size - 1}")
        return JSONResponse(self.explorer.opened.duplicates.compare(one, other, read_number(query, "node", -1)))

    # -- mixtures

    def mixtures(self, request: Request) -> Response:
        """The mixtures of all stages."""
        del request
        return JSONResponse(describe_mixtures(self.explorer.root, self.explorer.open_run().recipe))

    def solve(self, request: Request) -> Response:
        """A mixture with other shares, solved."""
        change = json.loads(request.query_params.get("change", "{}"))
        if not isinstance(change, dict):
            raise StoreError("change is a JSON object")
        stage = request.path_params["stage"]
        return JSONResponse(solve_changed(self.explorer.root, self.explorer.open_run().recipe, stage, change))


def read_static(name: str) -> Response:
    """A file of the page, under the name that it is asked for by.

    Raises:
        StoreError: there is no such file.
    """
    package, path = STATIC.get(name, ("vlmill.explore", f"static/{name}"))
    suffix = PurePosixPath(name).suffix
    place = files(package).joinpath(path)
    if "/" in name or name.startswith(".") or suffix not in KINDS or not place.is_file():
        raise StoreError(f"there is no file {name!r}")
    return Response(place.read_bytes(), media_type=f"{KINDS[suffix]}; charset=utf-8")


def read_number(query: Mapping[str, str], name: str, default: int) -> int:
    """A whole number of a query. Raises ValueError where it is none."""
    return int(query.get(name, default))


def read_source(query: Mapping[str, str], index: Index) -> str | None:
    """The source that a query names; None for all."""
    name = query.get("source", "")
    return name if name in index.sources else None


def describe_answer(answer: WhatIfAnswer) -> dict[str, Any]:
    """An answer of what-if: by source and level, over all sources, and its notes."""
    found = asdict(answer)
    totals = dict[str, dict[str, int]]()
    for levels in found["sources"].values():
        for level, kept in levels.items():
            line = totals.setdefault(level, dict.fromkeys(("came", "now", "then", "newly_dropped", "newly_kept"), 0))
            for name in line:
                line[name] += kept[name]
    return {"sources": found["sources"], "totals": totals, "notes": found["notes"], "asked": list(found["asked"])}
