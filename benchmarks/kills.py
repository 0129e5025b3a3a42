"""Kills at random moments of builds: `python -m benchmarks.kills [--kills 216] [--recipe quickstart] [--seed 0]`.

Builds the recipe once in one process. Then builds it again and again in each of the cases below: its storage a folder
or an S3 server (moto), its workers on this machine or on a cluster of machines in namespaces of their own. While it
builds, it kills the driver, a worker or a machine, or has the storage server stop or fail. The moments are random: soon
after numbers of receipts that are drawn from all that the build comes to. Where the driver was killed, the same command
is run again. Each build that ends is compared with the undisturbed one by the sha256 of everything under shards/ and
mixtures/. A recipe for clusters does not lie in /tmp, of which each machine has its own.

Ends with 1 where bytes differ, where a build fails for another reason than that one task lost its process three times,
or takes longer than ten minutes. `--log` keeps a line for each kill and each ended build, and the table at the end is
of all lines of that file, so that a campaign may be run in pieces.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.kill_places import OBSERVER, PIPES, Place, adopt_orphans, open_place
from tests.helpers.machines import explain_lack

LONGEST = 600.0
"""Seconds that a command may take to the next kill, or to its end."""

AFTER = (0.3, 2.5)
"""Seconds after a number of receipts within which the moment lies: half of the moments within the first."""

MOST = 24
"""Kills during one build."""


@dataclass(frozen=True)
class Case:
    """What is killed, and where builds run meanwhile."""

    storage: str  # "folder" or "s3"
    on: str  # "2 workers" or "cluster"
    victim: str  # "driver", "worker", "node" or "storage"
    weight: int  # of its share of the kills


WEIGHTS = {"driver": 1, "worker": 3, "node": 1, "storage": 3}
"""A killed driver or machine takes a start of half a minute to make good on a busy machine."""

CASES = tuple(
    Case(storage, on, victim, WEIGHTS[victim])
    for storage in ("folder", "s3")
    for on in ("2 workers", "cluster")
    for victim in ("driver", "worker", "node", "storage")
    if (victim != "node" or on == "cluster") and (victim != "storage" or storage == "s3")
)


@dataclass(frozen=True)
class Undisturbed:
    """What a build in one process comes to: the sha256 of its products, and its receipts."""

    product: str
    receipts: int


class CampaignError(Exception):
    """What the campaign was to find."""


class Log:
    """The lines of a campaign: dictionaries, also appended to a file."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.lines = [json.loads(line) for line in path.read_text().splitlines()] if path and path.exists() else []

    def add(self, case: Case, event: str, **values: Any) -> None:
        """Note an event of a case."""
        line = {"storage": case.storage, "on": case.on, "victim": case.victim, "event": event, **values}
        self.lines.append(line)
        print(time.strftime("%H:%M:%S"), *line.values(), flush=True)
        if self.path:
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")


class Observer:
    """Looks at runs from where they are built."""

    def __init__(self, place: Place) -> None:
        self.process = place.start_observer()

    def ask(self, what: str, root: str) -> str:
        """The observer's answer, as soon as the storage gives it."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{what} {root}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def count_receipts(self, root: str) -> int:
        """How many receipts there are."""
        return int(self.ask("receipts", root))


@contextmanager
def start_build(place: Place, recipe: str, root: str, said: Path) -> Iterator[subprocess.Popen[str]]:
    """A build, which is ended with the context; `said` gets what it prints."""
    words = [sys.executable, "-m", "vlmill.pipeline.cli", "build", recipe, "--out", root, *place.options]
    with said.open("w") as file:
        process = place.start(*words, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            kill_driver(place, process)


def kill_driver(place: Place, process: subprocess.Popen[str]) -> bool:
    """Kill a build's driver; says whether there was one."""
    number = place.find_driver(process)
    with suppress(ProcessLookupError):
        if number is not None:
            os.kill(number, signal.SIGKILL)
    process.wait()
    return number is not None and process.returncode != 0


class Campaign:
    """Builds and kills of one case."""

    def __init__(self, case: Case, place: Place, recipe: str, chance: random.Random, log: Log) -> None:
        self.case, self.place, self.recipe, self.chance, self.log = case, place, recipe, chance, log
        self.observer = Observer(place)

    def build(self, root: str, said: Path, moments: list[int]) -> int:
        """Build a run to its end, with a kill after each number of receipts; returns how many there were."""
        kills, ended = 0, False
        while not ended:
            done, ended = self.run_command(root, said, moments[kills:])
            kills += done
        return kills

    def run_command(self, root: str, said: Path, moments: list[int]) -> tuple[int, bool]:
        """Run the build's command once: the kills while it ran, and whether it ended well."""
        kills = 0
        with start_build(self.place, self.recipe, root, said) as process:
            while kills < len(moments) and self.wait_for_moment(process, root, moments[kills]):
                receipts = self.observer.count_receipts(root)
                how = self.strike(process)
                if how:
                    kills += 1
                    self.log.add(self.case, "kill", receipts=receipts, how=how)
                if self.case.victim == "driver" and how:
                    return kills, False
            try:
                process.wait(LONGEST)
            except subprocess.TimeoutExpired:
                raise CampaignError(f"{self.case}: no end within {LONGEST:.0f} s\n{read_end(said)}") from None
        if process.returncode == 0:
            return kills, True
        if kills < 3 or "its process died" not in said.read_text():
            raise CampaignError(f"{self.case}: failed with {process.returncode} after {kills}\n{read_end(said)}")
        self.log.add(self.case, "given up", kills=kills)
        return kills, False

    def wait_for_moment(self, process: subprocess.Popen[str], root: str, receipts: int) -> bool:
        """Wait until soon after so many receipts are there; False where the build has ended before."""
        began = time.monotonic()
        while process.poll() is None and self.observer.count_receipts(root) < receipts:
            if time.monotonic() - began > LONGEST:
                raise CampaignError(f"{self.case}: {receipts} receipts not reached within {LONGEST:.0f} s")
            time.sleep(0.1)
        with suppress(subprocess.TimeoutExpired):
            process.wait(self.chance.uniform(0, self.chance.choice(AFTER)))
        return process.poll() is None

    def strike(self, process: subprocess.Popen[str]) -> str:
        """Kill what the case says; how, or empty where there was nothing to kill."""
        if self.case.victim == "driver":
            return "SIGKILL" if kill_driver(self.place, process) else ""
        if self.case.victim == "node":
            self.place.kill_node(self.chance)
            return "power off"
        if self.case.victim == "storage":
            return self.place.stop_storage(self.chance)
        for number in self.chance.sample(found := self.place.find_workers(process), len(found)):
            with suppress(OSError):
                name = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")[0].decode()
                os.kill(number, signal.SIGKILL)
                return f"SIGKILL {name}"
        time.sleep(0.2)
        return ""


def read_end(said: Path) -> str:
    """The last lines of what a build printed."""
    return "\n".join(said.read_text().splitlines()[-40:])


def run_case(
    case: Case, kills: int, arguments: argparse.Namespace, base: Path, expected: Undisturbed, log: Log
) -> None:
    """Kill so many times in builds of a case."""
    chance = random.Random(f"{arguments.seed} {case}")
    with open_place(case.storage, case.on, base / "k") as (place, address):
        campaign, number = Campaign(case, place, arguments.recipe, chance, log), 0
        while kills > 0:
            root, number = f"{address}/run{number}", number + 1
            moments = sorted(chance.randrange(expected.receipts) for _ in range(min(kills, MOST)))
            done = campaign.build(root, base / "said", moments)
            product = campaign.observer.ask("product", root)
            log.add(case, "ended", kills=done, product=product)
            if product != expected.product:
                if case.storage == "folder":
                    shutil.copytree(root, arguments.keep or base / "differs", dirs_exist_ok=True)
                raise CampaignError(f"{case}: the bytes differ: {product}, undisturbed {expected.product}")
            kills -= done
            shutil.rmtree(root, ignore_errors=True)


def build_undisturbed(recipe: str, root: Path) -> Undisturbed:
    """Build in one process, unless that was done."""
    began = time.perf_counter()
    words = [sys.executable, "-m", "vlmill.pipeline.cli", "build", recipe, "--out", str(root), "--workers", "0"]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    asked = f"product {root}\nreceipts {root}\n"
    ran = subprocess.run([sys.executable, "-c", OBSERVER], input=asked, text=True, check=True, stdout=PIPES["stdout"])
    product, receipts = ran.stdout.split()
    print(f"in one process {product}, {receipts} receipts ({time.perf_counter() - began:.0f} s)", flush=True)
    return Undisturbed(product, int(receipts))


def share_kills(kills: int, cases: Iterable[Case]) -> dict[Case, int]:
    """So many kills dealt to the cases by their weights, at least one each."""
    chosen = list(cases)
    whole = sum(case.weight for case in chosen)
    return {case: max(1, round(kills * case.weight / whole)) for case in chosen}


def print_table(lines: Iterable[dict[str, Any]]) -> None:
    """A line of Markdown for each case: kills, builds that ended, and how many receipts there were at the kills."""
    print("| storage | on | victim | kills | receipts at the kills, least, median, most | builds ended |")
    print("|---|---|---|---|---|---|")
    for case in CASES:
        mine = [line for line in lines if (line["storage"], line["on"], line["victim"]) == _name_case(case)]
        receipts = sorted(line["receipts"] for line in mine if line["event"] == "kill")
        ended = sum(line["event"] == "ended" for line in mine)
        if receipts:
            reached = f"{receipts[0]}, {receipts[len(receipts) // 2]}, {receipts[-1]}"
            print(f"| {case.storage} | {case.on} | {case.victim} | {len(receipts)} | {reached} | {ended} |")


def _name_case(case: Case) -> tuple[str, str, str]:
    return case.storage, case.on, case.victim


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=216)
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--seed", type=int, default=0)
    for name in ("storage", "on", "victim"):
        choices = list(dict.fromkeys(getattr(case, name) for case in CASES))
        parser.add_argument(f"--{name}", nargs="+", choices=choices, default=choices)
    parser.add_argument("--undisturbed", type=Path, help="folder of the undisturbed run, which is kept")
    parser.add_argument("--log", type=Path, help="file that lines are appended to, and the table is made of")
    parser.add_argument("--keep", type=Path, help="folder for a run whose bytes differ")
    arguments = parser.parse_args()
    cases = [
        case
        for case in CASES
        if case.storage in arguments.storage and case.on in arguments.on and case.victim in arguments.victim
    ]
    if lack := explain_lack():
        print(f"no cluster: {lack}")
        cases = [case for case in cases if case.on != "cluster"]
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    log = Log(arguments.log)
    with tempfile.TemporaryDirectory(prefix="vlmill-kills-") as name:
        expected = build_undisturbed(arguments.recipe, arguments.undisturbed or Path(name) / "whole")
        try:
            for case, kills in share_kills(arguments.kills, cases).items():
                run_case(case, kills, arguments, Path(name), expected, log)
        except CampaignError as error:
            sys.exit(str(error))
        finally:
            print_table(log.lines)


if __name__ == "__main__":
    main()
