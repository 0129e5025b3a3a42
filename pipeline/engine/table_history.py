"""What happens to the raw tables of a partition after they came: takedowns and retries, as steps of a chain.

A chain asks for both before its other steps see the tables. `ChainPass` (chain.py) runs them; partition_tables.py finds
them again in a finished run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, Self

from vlmill.pipeline.core.names import MATCHES_FILE
from vlmill.pipeline.core.step import Step
from vlmill.pipeline.engine.chain import ChainPass, ChainStep
from vlmill.pipeline.engine.store import File, Receipt, Store, Task
from vlmill.pipeline.takedown import TABLES, Match, Matches, Redact, make_redaction


class RetryStep(Step, Protocol):
    """A step that is done in rounds, each over what the one before it left."""

    def next_round(self) -> Self:
        """The same step, one round later."""
        ...


@dataclass(frozen=True)
class RetryRounds:
    """The rounds of a retry, and the folder that their files go to."""

    folder: str
    step: RetryStep  # of the first round
    again: bool = False  # whether to do one more round than were done


@dataclass(frozen=True)
class TableHistory(ChainStep):
    """Redactions of a raw table, and retries between them, in the order in which they were done."""

    step: Redact
    retry: RetryRounds | None = None

    def run(self, chain_pass: ChainPass) -> Iterator[tuple[str, Receipt]]:
        """All that was done to the table, and one more round of retries if asked for.

        What a redaction replaced is deleted.
        """
        root = chain_pass.store.root
        for folder, receipt in find_history(chain_pass.store, chain_pass.partition, self, chain_pass.files):
            if folder == self.folder:
                for file in find_superseded(receipt, chain_pass.list_files()):
                    (root / file.path).unlink(missing_ok=True)
            yield folder, receipt

    def started_anew(self) -> TableHistory:
        """Without the round of retries, which was done."""
        return replace(self, retry=self.retry and replace(self.retry, again=False))


@dataclass(frozen=True)
class MatchTakedowns(ChainStep):
    """Looks for what stands on the list of takedowns. What it finds is redacted, and the chain starts anew."""

    step: Match
    redactions: str  # folder of the steps that redact

    def changes_earlier_files(self, chain_pass: ChainPass) -> bool:
        """Whether something was found; it is redacted in the tables."""
        found = Matches.read(chain_pass.store.root / chain_pass.files[MATCHES_FILE].path)
        for table in TABLES:
            if getattr(found, table):
                chain_pass.store.perform(
                    Task.over(chain_pass.files, self.redactions, chain_pass.partition, make_redaction(table, found))
                )
        return bool(found)


def find_history(
    store: Store, partition: str, history: TableHistory, files: Mapping[str, File]
) -> Iterator[tuple[str, Receipt]]:
    """(folder, receipt) of what was done to a raw table, in its order; `files` is looked at again after each.

    A redaction deletes what it replaces, so whatever was done to the same tables before and after it is found under
    other keys.
    """
    retry = history.retry
    while True:
        redaction = store.find(Task.over(files, history.folder, partition, history.step))
        if redaction is not None:
            yield history.folder, redaction
            continue
        if retry is None:
            return
        task = Task.over(files, retry.folder, partition, retry.step)
        round_done = store.find(task)
        if round_done is None:
            if retry.again:
                yield retry.folder, store.perform(task)
            return
        yield retry.folder, round_done
        retry = replace(retry, step=retry.step.next_round())


def find_superseded(redaction: Receipt, before: Iterable[File]) -> list[File]:
    """The files that a redaction replaced: those of the same names that came before it."""
    names, own = {file.name for file in redaction.files}, {file.path for file in redaction.files}
    return [file for file in before if file.name in names and file.path not in own]
