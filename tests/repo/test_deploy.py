"""The files of deploy/: forms that others' tools accept, and commands that vlmill has."""

import json
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import jsonschema
import ray
import yaml
from typer.main import get_command

from vlmill.pipeline.cli import app

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"


def read_cluster():
    return yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text())


def read_job():
    return yaml.safe_load((DEPLOY / "rayjob.yaml").read_text())


def check_command(line):
    """A command of vlmill with options that it has."""
    program, name, *words = shlex.split(line)
    assert program == "vlmill"
    known = {option for parameter in get_command(app).commands[name].params for option in parameter.opts}
    options = [word for word in words if word.startswith("-")]
    assert options
    assert set(options) <= known


def test_ray_up_reads_the_cluster():
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    cluster = read_cluster()
    jsonschema.validate(cluster, schema)
    assert cluster["head_node_type"] in cluster["available_node_types"]
    assert all(
        kind.get("max_workers", 0) <= cluster["max_workers"] for kind in cluster["available_node_types"].values()
    )


def test_the_job_of_kubernetes_starts_the_ray_that_is_installed_on_volumes_that_are_there():
    spec = read_job()["spec"]
    cluster = spec["rayClusterSpec"]
    assert cluster["rayVersion"].split(".")[:2] == version("ray").split(".")[:2]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
    assert all(group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] for group in groups[1:])


def test_every_command_exists_with_its_options():
    check_command(read_job()["spec"]["entrypoint"])
    script = (DEPLOY / "build.sbatch").read_text().replace("\\\n", " ")
    (line,) = (line for line in script.splitlines() if line.startswith("srun "))
    launcher, _, command = line.partition(" -- ")
    check_command(command)
    shown = subprocess.run(
        [Path(sys.executable).parent / "ray", "symmetric-run", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert all(word in shown for word in shlex.split(launcher) if word.startswith("--"))


def test_the_script_of_slurm_is_sound_shell():
    subprocess.run(["bash", "-n", DEPLOY / "build.sbatch"], check=True)


def test_the_image_installs_what_the_makefile_installs_with_extras_that_exist():
    text = (DEPLOY / "Dockerfile").read_text()
    torch = next(word for word in (ROOT / "Makefile").read_text().split() if word.startswith("torch=="))
    assert torch in text
    assert "--constraint constraints.txt" in text
    extras = text.split("'.[")[1].split("]'")[0].split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras) <= set(project["optional-dependencies"])
    assert set(extras) == set(project["optional-dependencies"]) - {"test", "docs", "benchmarks", "smollm2"}
