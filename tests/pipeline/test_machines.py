"""Builds on machines that share a network and a run's folder, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from tests.helpers.machines import OVERLAY, RAY, explain_lack, find_processes, open_network, start_ray
from tests.helpers.object_storage import SERVER, name_environment
from tests.helpers.small import RECIPE, vlmill, write_recipe

pytestmark = [
    pytest.mark.skipif(bool(explain_lack()), reason=explain_lack()),
    pytest.mark.timeout(1200),  # Ray waits half a minute for a machine that has gone, and starts slowly on a busy one
]


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
        head = network.add_machine("head", **RAY)
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
    return Path(sys.executable).with_name("vlmill"), "build", folder / "recipe.yaml", "--out", place, *more


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


def kill_worker(machine):
    """Kill a process of a machine that is at work."""
    end = time.monotonic() + 60
    while not (found := find_processes(machine, "ray::_run_noting")):
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
    head, one, two = network.machines[:3]
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
    kill(*find_processes(wrong, "raylet"), by=signal.SIGTERM)
    assert done.returncode == 1
    first, *lines = done.stderr.splitlines()
    assert first == "error: the cluster cannot work on this run yet, and nothing was begun:"
    assert [line.partition(": ")[0] for line in lines] == [f"  node {wrong.address} (wrong)"] * len(EXPECTED)
    for line, expected in zip(lines, EXPECTED, strict=True):
        assert line.partition(": ")[2].startswith(expected.format(root=root))
    assert ", polars 2.0.1 (here " in lines[2]
    assert not list(root.glob("steps/**/*"))


def test_a_build_whose_head_is_killed_ends_with_the_next_step_and_goes_on_without(folder, network):
    head, one = network.machines[:2]
    process = start_build(folder, one, "headless")
    kill(*find_processes(head, "gcs_server"), *find_processes(head, "raylet"))
    said, _ = process.communicate(timeout=55)  # Ray itself would end it after 60 s
    assert process.returncode == 1
    error = said[said.index("error:") :]
    assert "the head of the Ray cluster at 10.77.0.2:6379 has gone" in error
    assert "Start the cluster anew, and run the same command again" in error
    assert vlmill(*build(folder, "headless", "--workers", 0)[1:]) == 0
    assert hash_run(folder / "headless") == hash_run(folder / "here")
