"""Builds on machines that share a network and a run's folder, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress

import pytest
import yaml

from tests.helpers.machines import OVERLAY, QUICK, RAY, explain_lack, find_processes, open_network, start_ray
from tests.helpers.object_storage import SERVER, name_environment
from tests.helpers.small import RECIPE, vlmill, write_recipe

pytestmark = [
    pytest.mark.skipif(bool(explain_lack()), reason=explain_lack()),
    pytest.mark.timeout(1200),  # Ray waits half a minute for a machine that has gone, and starts slowly on a busy one
]


RUN = (sys.executable, "-m", "vlmill.pipeline.cli")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("machines")
    stage = RECIPE["stages"][0]
    mixture = {**stage["mixture"], "shares": {"web": 0.5, "quiz": 0.5}}
    sources = {name: RECIPE["sources"][name] for name in ("web", "quiz")}
    write_recipe(folder, sources=sources, stages=[{**stage, "mixture": mixture}])
    assert vlmill("build", folder / "recipe.yaml", "--out", folder / "here", "--workers", 0) == 0
    return folder


@pytest.fixture(scope="module")
def network(folder):
    """A head without CPUs, two machines with one, and an S3 server on the head that all may ask."""
    with open_network(folder) as network:
        head = network.add_machine("head", **RAY, **QUICK)
        server = head.start(sys.executable, "-c", SERVER, head.address, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        reached = name_environment(int(server.stdout.readline()), head.address)
        head.environment |= reached
        others = [network.add_machine(name, **RAY, **reached) for name in ("one", "two")]
        start_ray(head, head, 0)
        for machine in others:
            start_ray(machine, head, 1)
        yield network
        server.stdin.close()
        server.wait()


def take_workers(network, number):
    """So many machines of the cluster that work; others are added where some have been killed."""
    found = [one for one in network.machines[1:] if one.process.poll() is None and find_processes(one, "raylet")]
    for place in range(len(found), number):
        machine = network.add_machine(f"more{len(network.machines)}{place}", **network.machines[0].environment)
        start_ray(machine, network.machines[0], 1)
        found.append(machine)
    return found


def hash_run(root):
    """Every file of a run but logs, locks, and what killed tasks leave for the next build: path -> sha256."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and "/.tmp-" not in str(path))
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.relative_to(root).parts[0] not in ("logs", ".lock")
    }


def build(folder, out, *more):
    place = out if "://" in out else folder / out
    return *RUN, "build", folder / "recipe.yaml", "--out", place, *more


def start_build(folder, machine, out):
    """A build on a cluster that has come to partitions of documents, whose images it fetches."""
    process = machine.start(
        *build(folder, out, "--ray", "auto"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    said = []
    while not (said and said[-1].startswith("curate: hosts")):
        said.append(process.stdout.readline())
        assert said[-1], said
    return process


def kill(*processes, by=signal.SIGKILL):
    for process in processes:
        os.kill(process, by)


def end_ray(machine):
    """Have a machine leave the cluster in good order."""
    while left := find_processes(machine, "raylet"):
        with suppress(ProcessLookupError):
            kill(*left, by=signal.SIGTERM)
        time.sleep(0.2)


def kill_worker(machine):
    """Kill a process of a machine that is at work."""
    end = time.monotonic() + 60
    while not (found := find_processes(machine, "ray::run_item")):
        assert time.monotonic() < end, "nothing is at work there"
        time.sleep(0.05)
    kill(*found)


HASH_OBJECTS = """
import hashlib, json, sys
from vlmill.pipeline.core.run_path import RunPath
root = RunPath(sys.argv[1])
files = {str(path.relative_to(root)): path for path in sorted(root.rglob("*"))}
found = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
print(json.dumps({name: value for name, value in found.items() if name.split("/")[0] not in ("logs", ".lease")}))
"""
MAKE_BUCKET = "import sys, urllib.request as web; web.urlopen(web.Request(sys.argv[1], method='PUT')).close()"


def test_a_build_on_object_storage_goes_on_where_a_worker_and_a_machine_are_killed(folder, network):
    head, (one, two) = network.machines[0], take_workers(network, 2)[:2]
    assert head.run(sys.executable, "-c", MAKE_BUCKET, f"{head.environment['AWS_ENDPOINT_URL']}/bucket").returncode == 0
    process = start_build(folder, head, "s3://bucket/run")
    kill_worker(one)
    two.kill()
    said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said
    done = head.run(sys.executable, "-c", HASH_OBJECTS, "s3://bucket/run")
    assert json.loads(done.stdout) == hash_run(folder / "here")


PACKAGES = sysconfig.get_path("purelib")
WRONG = f"""
{OVERLAY}
rm -rf {PACKAGES}/numpy {PACKAGES}/numpy-*
sed -i 's/^Version: .*/Version: 2.0.1/' {PACKAGES}/polars-*/METADATA
mount -t tmpfs -o size=64m tmpfs /tmp/scratch
"""
EXPECTED = [
    f"{sys.executable} cannot import vlmill (ModuleNotFoundError: No module named 'numpy')",
    "its scratch /tmp/scratch has 0.0",
    "other packages than here: numpy missing (here ",
    "the run's folder {root} is not there as this machine has it (No such file or directory); mount it under",
]


def test_a_machine_that_cannot_work_is_named_with_each_cause_before_any_work(folder, network):
    head, root = network.machines[0], folder / "bad"
    wrong = network.add_machine("wrong", WRONG, sees_shared=False, **RAY)
    start_ray(wrong, head, 1)
    done = head.run(*build(folder, "bad", "--ray", "auto"))
    end_ray(wrong)
    assert done.returncode == 1
    first, *lines = done.stderr.splitlines()
    assert first == "error: the cluster cannot work on this run yet, and nothing was begun:"
    assert [line.partition(": ")[0] for line in lines] == [f"  node {wrong.address} (wrong)"] * len(EXPECTED)
    for line, expected in zip(lines, EXPECTED, strict=True):
        assert line.partition(": ")[2].startswith(expected.format(root=root))
    assert ", polars 2.0.1 (here " in lines[2]
    assert not list(root.glob("steps/**/*"))


def test_of_machines_that_join_while_a_build_works_one_is_left_out_and_another_does_all_that_is_left(folder, network):
    head, before = network.machines[0], take_workers(network, 1)
    process = start_build(folder, head, "late")
    for machine in before:
        machine.kill()
    wrong = network.add_machine("unfit", WRONG, sees_shared=False, **RAY)
    start_ray(wrong, head, 1)
    late = network.add_machine("late", **head.environment)
    start_ray(late, head, 1)
    said, _ = process.communicate(timeout=900)
    end_ray(wrong)
    assert process.returncode == 0, said
    (left_out,) = (line for line in said.splitlines() if "joined the cluster" in line)
    assert f"is given no work: {wrong.address} (unfit): {EXPECTED[0]}" in left_out
    assert hash_run(folder / "late") == hash_run(folder / "here")


SLOW_DISK = f"""
{OVERLAY}
echo "import os; os.fsync = lambda _: __import__('time').sleep(600)" > {PACKAGES}/slow_disk.pth
"""
PATIENT_S = 2  # of a task before it is done a second time, in place of a minute
IMPATIENT = f"""
from vlmill.pipeline.cli import main
from vlmill.pipeline.engine import running_items
running_items.LEAST_S = running_items.ALONE_S = {PATIENT_S}
main()
"""


def test_what_a_machine_with_a_slow_disk_does_not_end_is_done_elsewhere(folder, network):
    """Nothing is fetched, since that is never done twice."""
    head, _ = network.machines[0], take_workers(network, 1)
    quiet = folder / "quiet"
    stage = RECIPE["stages"][0]
    mixture = {**stage["mixture"], "shares": {"quiz": 0.5, "scans": 0.5}}
    sources = {name: RECIPE["sources"][name] for name in ("quiz", "scans")}
    write_recipe(quiet, sources=sources, partition={"rows": 3}, stages=[{**stage, "mixture": mixture}])
    assert vlmill("build", quiet / "recipe.yaml", "--out", quiet / "here", "--workers", 0) == 0
    slow = network.add_machine("slow", SLOW_DISK, **RAY)
    start_ray(slow, head, 1)
    words = build(quiet, "slow", "--ray", "auto")[len(RUN) :]
    process = head.start(
        *(sys.executable, "-c", IMPATIENT, *words),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    while not find_processes(slow, "ray::run_item"):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    said, _ = process.communicate(timeout=900)
    end_ray(slow)
    assert process.returncode == 0, said
    assert hash_run(quiet / "slow") == hash_run(quiet / "here")


IN_PIECES = """
from functools import partial
from vlmill.pipeline import cli
from vlmill.pipeline.dedupe import gather, pieces
from vlmill.pipeline.engine import deduping
deduping.cut_blocks = partial(pieces.cut_blocks, most=10)
gather.FEW, pieces.LINKS = 3, 4
cli.main()
"""
DEDUPE = {"paragraphs": 2, "containment": 0.6, "host_images": 0.9, "across_documents": True, "boilerplate": 3}


def test_dedupe_in_pieces_over_machines_leaves_the_bytes_of_one_where_a_worker_and_a_machine_are_killed(
    folder, network
):
    head, (one, two) = network.machines[0], take_workers(network, 2)[:2]
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text()) | {"dedupe": DEDUPE, "partition": {"rows": 3}}
    (folder / "deduped.yaml").write_text(yaml.safe_dump(recipe | {"stages": []}))
    run = (sys.executable, "-c", IN_PIECES, "build", folder / "deduped.yaml", "--until")
    done = head.run(*run, "signals", "--out", folder / "alone", "--workers", "0")
    assert done.returncode == 0, done.stderr
    shutil.copytree(folder / "alone", folder / "together")
    assert head.run(*run, "dedupe", "--out", folder / "alone", "--workers", "0").returncode == 0
    process = head.start(
        *run, "dedupe", "--out", folder / "together", "--ray", "auto", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said = []
    while not (said and said[-1].startswith("dedupe: edges")):
        said.append(process.stdout.readline())
        assert said[-1], said
    kill_worker(one)
    two.kill()
    rest, _ = process.communicate(timeout=900)
    assert process.returncode == 0, rest
    assert hash_run(folder / "together") == hash_run(folder / "alone")


def test_a_build_whose_head_is_killed_ends_with_the_next_step_and_goes_on_without(folder, network):
    """The last one: it leaves no cluster."""
    head, one = network.machines[0], take_workers(network, 1)[0]
    process = start_build(folder, one, "headless")
    kill(*find_processes(head, "gcs_server"), *find_processes(head, "raylet"))
    said, _ = process.communicate(timeout=55)  # Ray itself would end it after 60 s
    assert process.returncode == 1
    error = said[said.index("error:") :]
    assert "the head of the Ray cluster at 10.77.0.2:6379 has gone" in error
    assert "Start the cluster anew, and run the same command again" in error
    assert vlmill(*build(folder, "headless", "--workers", 0)[len(RUN) :]) == 0
    assert hash_run(folder / "headless") == hash_run(folder / "here")
