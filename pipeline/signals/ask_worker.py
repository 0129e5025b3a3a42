"""The worker of a signal `ask`: asks a server about the units of chunks, and keeps what it answered.

There is one worker in a build, whatever its executor, so `concurrency` bounds the requests of the whole build, and
`Retry-After` holds all of them back. It waits in one thread with an event loop and takes no CPU core meanwhile. What
stands in the journal of a partition is not asked; the same content is asked once.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Self, TypeVar

import numpy as np

from vlmill.pipeline.core.answers import Answer, PlacedAnswer
from vlmill.pipeline.core.errors import RecipeError
from vlmill.pipeline.core.reasons import Reason
from vlmill.pipeline.core.scores import Scores
from vlmill.pipeline.images.views import JpegView
from vlmill.pipeline.signals.ask import Ask, Request
from vlmill.pipeline.signals.base import DECIMALS, Signal, Unit
from vlmill.pipeline.signals.chunks import AskedUnit, SignalChunk, find_loss, list_asked
from vlmill.pipeline.signals.endpoint import Endpoint, Reply, ServerFailed
from vlmill.pipeline.signals.journal import Journal
from vlmill.pipeline.signals.worker import NO_VALUE, ScoredChunk, SignalWorker

T = TypeVar("T")

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before what a server failed is tried again: twice as long each time, less up to a half by chance."""

MOST_PATIENCE = 600.0
"""Seconds that `Retry-After` may ask for; a server that asks for more ends the build."""

USELESS = 32
"""Things in a row that come to nothing before any was answered: then the recipe or the server is at fault."""

JOURNALS = 64
"""That are open at once. More partitions on their way only read their journals again."""

PROBE = "Are you there? Answer with one word."


def open_worker(name: str, signal: Signal, root: Path | None = None) -> SignalWorker | AskWorker:
    """The worker of a signal; `root` is the run's folder, where a build asks."""
    return AskWorker(name, signal, root) if isinstance(signal, Ask) else SignalWorker(name, signal)  # type: ignore[arg-type]


class AskWorker:
    """Asks one server. Nothing is opened before the first chunk. `score_chunk` may be called from several threads."""

    def __init__(self, name: str, signal: Ask, root: Path | None = None) -> None:
        self.name, self.signal, self.root = name, signal, root
        self._starting, self._loop, self._asker = threading.Lock(), asyncio.new_event_loop(), _Asker(name, signal, root)
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def score_chunk(self, chunk: SignalChunk) -> ScoredChunk:
        """The answers about all units of a chunk, ordered by sample and node.

        Raises:
            RecipeError: the server cannot be asked as the recipe says.
            StoreError: it does not answer.
        """
        began, view, asked = perf_counter(), self.signal.view(), list_asked(chunk, self.signal)
        lost = [find_loss(chunk, item.unit, view) for item in asked]
        requests = [
            self.signal.make_request(item.unit.texts, _find_pictures(chunk, item.unit, view))
            if reason is None
            else None
            for item, reason in zip(asked, lost, strict=True)
        ]
        answers = iter(self._run(self._asker.ask_all(chunk.partition, [item for item in requests if item is not None])))
        found = [None if request is None else next(answers) for request in requests]
        scored = _gather_answers(self.signal, len(self.signal.columns(self.name)), asked, lost, found)
        return replace(scored, seconds=perf_counter() - began)

    def load(self) -> None:
        """Nothing: the model is with the server."""

    def close(self) -> None:
        """End what waits, and close connections and journals."""
        if self._thread is not None:
            self._run(self._asker.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._thread = None
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop.run_forever, name=f"ask {self.name}", daemon=True)
                self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _find_pictures(chunk: SignalChunk, unit: Unit, view: JpegView | None) -> list[bytes]:
    """The pictures of a unit, in order."""
    return [] if view is None else [chunk.pictures[view][chunk.places[number]] for number in unit.shown]


def _gather_answers(
    signal: Ask,
    width: int,
    asked: Sequence[AskedUnit],
    lost: Sequence[Reason | None],
    answers: Sequence[Answer | None],
) -> ScoredChunk:
    """Values, reasons and answers of all units, in order."""
    values, reasons, placed = np.full((len(asked), width), np.nan, np.float32), list[str | None](), []
    for place, (item, reason, answer) in enumerate(zip(asked, lost, answers, strict=True)):
        if answer is None:
            reasons.append(str(reason))
            continue
        placed.append(PlacedAnswer(item.row, item.unit.node, answer))
        read = None if answer.text is None else signal.read_answer(answer.text)
        reasons.append(answer.reason or NO_VALUE if read is None else None)
        if read is not None:
            values[place] = np.round(np.array(read, np.float64), DECIMALS)
    samples, nodes = (
        np.array(found, np.int32) for found in ([item.row for item in asked], [item.unit.node for item in asked])
    )
    served = sorted({one.answer.served for one in placed if one.answer.served})
    pictures = len({number for item in asked for number in item.unit.shown}) if signal.view() else 0
    scores = Scores(samples, nodes, tuple(reasons), values)
    return ScoredChunk(scores, {"model": ", ".join(served)} if served else {}, pictures, answers=tuple(placed))


class _Asker:
    """What lives in the event loop of a worker."""

    def __init__(self, name: str, signal: Ask, root: Path | None) -> None:
        self.name, self.signal, self.root = name, signal, root
        self.endpoint: Endpoint | None = None
        self.slots = asyncio.Semaphore(signal.concurrency)
        self.journals = OrderedDict[str, Journal]()
        self.asking = dict[tuple[str, str], asyncio.Task[Answer]]()  # partition, request -> who asks it
        self.resume = 0.0  # time of the loop before which nothing is sent
        self.structured = True  # whether the server takes a schema
        self.useful, self.useless = False, 0
        self.error: BaseException | None = None  # the first; it ends all that was asked

    async def close(self) -> None:
        await self._cancel()
        for journal in self.journals.values():
            journal.close()
        if self.endpoint is not None:
            await self.endpoint.close()

    async def ask_all(self, partition: str, requests: Sequence[Request]) -> list[Answer]:
        """The answers to requests, in order. The first error ends all that was asked and is not answered."""
        if self.endpoint is None:
            self.endpoint = Endpoint(self.name, self.signal)
        journal = self._open_journal(partition)
        tasks = [self._find_task(partition, journal, request) for request in requests]
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        journal.flush()
        failed = (task.exception() for task in tasks if task.done() and not task.cancelled())
        self.error = self.error or next((error for error in failed if error is not None), None)
        if self.error is not None:
            await self._cancel()
            raise self.error
        return [task.result() for task in tasks]

    async def _cancel(self) -> None:
        """End all that is not answered."""
        tasks = list(self.asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _open_journal(self, partition: str) -> Journal:
        if partition in self.journals:
            self.journals.move_to_end(partition)
            return self.journals[partition]
        source, _, name = partition.partition("/")
        folder = self.root / "steps" / source / self.name if self.root is not None else None
        journal = self.journals[partition] = Journal(folder, name, self.name)
        self.useful = self.useful or any(answer.reason is None for answer in journal.known.values())
        busy = {at for at, _ in self.asking}
        for old in [at for at in self.journals if at != partition and at not in busy][: -JOURNALS or None]:
            self.journals.pop(old).close()
        return journal

    def _find_task(self, partition: str, journal: Journal, request: Request) -> asyncio.Task[Answer]:
        """Who asks a request: one task, however many units have the same content."""
        place = partition, request.sha256
        if place not in self.asking:
            task = self.asking[place] = asyncio.create_task(self._answer(journal, request))
            task.add_done_callback(lambda _: self.asking.pop(place, None))
        return self.asking[place]

    async def _answer(self, journal: Journal, request: Request) -> Answer:
        """From the journal, or asked now and put there."""
        known = journal.known.get(request.sha256)
        if known is not None:
            return known
        async with self.slots:
            answer = await _Inquiry(self, request).run()
        self._judge(answer)
        journal.add(answer)
        return answer

    def _judge(self, answer: Answer) -> None:
        """Count what comes to nothing.

        Raises:
            RecipeError: nothing was ever answered.
        """
        self.useful = self.useful or answer.reason is None
        self.useless += not self.useful
        if self.useless >= USELESS:
            raise RecipeError(
                f"signals.{self.name}: of the first {USELESS} things that were asked about, none was answered in the "
                f"declared form; the last was {answer.reason}: {answer.detail or 'nothing said'}. See to `model`, "
                "`prompt` and `answer`, and whether the model takes what it is sent"
            )

    async def wait_turn(self) -> None:
        """Until the server wants to be asked again; it may say a later time meanwhile."""
        loop = asyncio.get_running_loop()
        left = self.resume - loop.time()
        if left > 0:
            await asyncio.sleep(left)
            await self.wait_turn()

    async def is_alive(self, request: Request) -> bool:
        """Whether the server answers a question that is as simple as can be."""
        assert self.endpoint is not None
        try:
            await self.endpoint.post(Request(request.signal, PROBE, ()).make_body((), structured=False))
        except ServerFailed:
            return False
        return True


class _Inquiry:
    """One request on its way to an answer: tries, waits, and what they cost."""

    def __init__(self, asker: _Asker, request: Request) -> None:
        assert asker.endpoint is not None
        self.asker, self.request, self.endpoint = asker, request, asker.endpoint
        self.requests = self.failures = self.input_tokens = self.output_tokens = 0
        self.refused = list[str]()  # answers that were not of the form
        self.with_schema = False  # whether the last try told the server the form

    async def run(self) -> Answer:
        """The answer, or why there is none.

        Raises:
            StoreError: the server does not answer this, nor anything.
        """
        tries = 0
        while True:
            try:
                reply = await self._post()
            except ServerFailed as failed:
                tries, self.failures = tries + 1, self.failures + 1
                if tries > self.asker.signal.retries or (failed.wait or 0) > MOST_PATIENCE:
                    if failed.busy or (failed.wait or 0) > MOST_PATIENCE or not await self.asker.is_alive(self.request):
                        raise self.endpoint.explain_end(failed) from None
                    return self._close(None, failed.reason, failed.detail)
                await self._wait(failed, tries)
                continue
            if reply.refusal:
                if self._drop_schema(reply):
                    continue
                return self._close(reply, Reason.HTTP_CLIENT_ERROR, reply.refusal)
            tries = 0
            if reply.content and reply.whole and self.asker.signal.read_answer(reply.content) is not None:
                return self._close(reply, None)
            self.refused.append(reply.content or "")
            if len(self.refused) > self.asker.signal.again:
                return self._close(reply, Reason.BAD_ANSWER, _explain_bad(reply, self.endpoint))

    async def _post(self) -> Reply:
        await self.asker.wait_turn()
        self.requests += 1
        self.with_schema = self.asker.structured  # others may find out meanwhile that the server takes none
        reply = await self.endpoint.post(self.request.make_body(self.refused, structured=self.with_schema))
        self.input_tokens += reply.input_tokens
        self.output_tokens += reply.output_tokens
        return reply

    async def _wait(self, failed: ServerFailed, tries: int) -> None:
        """Back off: as long as the server says, for all requests, or twice as long as before."""
        if failed.wait is not None:
            resume = asyncio.get_running_loop().time() + failed.wait
            self.asker.resume = max(self.asker.resume, resume)
        chance = hashlib.sha256(f"{self.request.sha256} {tries}".encode()).digest()[0] / 255
        await asyncio.sleep(min(LONGEST_WAIT, FIRST_WAIT * 2 ** (tries - 1)) * (1 - chance / 2))

    def _drop_schema(self, reply: Reply) -> bool:
        """Whether a refusal is about the schema, which is then never sent again."""
        named = any(word in reply.refusal for word in ("response_format", "json_schema"))
        if not (self.with_schema and named):
            return False
        self.asker.structured = False
        return True

    def _close(self, reply: Reply | None, reason: Reason | None, detail: str = "") -> Answer:
        return Answer(
            request=self.request.sha256,
            text=reply.content if reply is not None and reason is None else None,
            reason=None if reason is None else str(reason),
            detail=detail,
            served=reply.served if reply is not None else "",
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            requests=self.requests,
            failures=self.failures,
            bad=len(self.refused),
        )


def _explain_bad(reply: Reply, endpoint: Endpoint) -> str:
    """What is wrong with an answer."""
    if not reply.whole:
        return "cut at max_tokens"
    return endpoint.quote(reply.content) if reply.content else "no content"
