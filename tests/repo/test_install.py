"""A wheel and an editable install hold everything and nothing else, and are imported whatever lies beside them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import vlmill

ROOT = Path(__file__).parents[2]
PACKAGES = ("pipeline", "mixtures", "train", "recipes")
HOSTILE = 'raise SystemExit("a file of another project was imported")\n'

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the repository: building leaves files in it."""
    tree = tmp_path_factory.mktemp("tree")
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*")
    for name in ("src", *PACKAGES, "tests", "benchmarks", "examples"):
        shutil.copytree(ROOT / name, tree / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copyfile(ROOT / name, tree / name)
    return tree


def pip(*arguments):
    """Run pip of this environment, without a network."""
    offline = ("--disable-pip-version-check", "--no-index", "--no-deps", "--no-build-isolation", "--quiet")
    command = [sys.executable, "-m", "pip", *map(str, arguments), *offline]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tree, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--wheel-dir", folder, tree)
    (path,) = folder.iterdir()
    return path


@dataclass(frozen=True)
class Installed:
    """A separate environment with this one's packages behind it, and a folder of another project to work in."""

    bin: Path
    package: Path  # where vlmill has to be imported from
    folder: Path

    def run(self, *command, **variables):
        """Run a command in the folder; nothing of this process's paths is passed on."""
        passed = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
        path = f"{self.bin}{os.pathsep}{passed['PATH']}"
        return subprocess.run(
            [self.bin / command[0], *map(str, command[1:])],
            cwd=self.folder,
            env={**passed, "PATH": path, **variables},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module", params=["wheel", "editable"])
def installed(request, tree, tmp_path_factory):
    """Beside a package named `recipes`, as torchtune 0.6.1 has, in a folder with `train.py`, `pipeline/` and more."""
    folder = tmp_path_factory.mktemp(request.param)
    venv.create(folder / "environment", with_pip=False)
    python = folder / "environment/bin/python"
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "environment")}))
    (site / "zz_base.pth").write_text(f"{sysconfig.get_path('purelib')}\n")  # behind what is installed here
    if request.param == "wheel":
        pip("--python", python, "install", request.getfixturevalue("wheel"))
    else:
        pip("--python", python, "install", "--editable", tree)
    _write_package(site / "recipes")
    for name in PACKAGES:
        _write_package(folder / "project" / name)
        (folder / "project" / f"{name}.py").write_text(HOSTILE)
    return Installed(python.parent, (site if request.param == "wheel" else tree / "src") / "vlmill", folder / "project")


def _write_package(folder):
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(HOSTILE)


# -- the files of a wheel


def test_a_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel, tree):
    wanted = {
        f"vlmill/{path.relative_to(tree)}" for name in PACKAGES for path in (tree / name).rglob("*") if path.is_file()
    }
    wanted |= {str(path.relative_to(tree / "src")) for path in (tree / "src/vlmill").rglob("*") if path.is_file()}
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == wanted
    assert held >= {
        "vlmill/py.typed",
        "vlmill/recipes/quickstart.yaml",
        "vlmill/recipes/ablations/quickstart.yaml",
        "vlmill/recipes/quickstart/tokenizer.json",
        "vlmill/mixtures/published/the_cauldron.yaml",
        "vlmill/mixtures/page/page.html.jinja",
        "vlmill/pipeline/page/report.js",
        "vlmill/pipeline/page/style.css",
    }


def test_a_wheel_has_the_version_of_the_package(wheel):
    assert wheel.name.startswith(f"vlmill-{vlmill.__version__}-")


# -- whose code runs


def test_the_command_starts_and_reads_what_ships(installed):
    said = installed.run("vlmill", "--version")
    assert said.stdout == f"vlmill {vlmill.__version__} ({installed.package})\n", said.stderr
    built = installed.run("vlmill", "build", "quickstart", "--out", "run", "--until", "survey", "--workers", 0)
    assert built.returncode == 0, built.stderr
    listed = installed.run("vlmill", "mixtures", "list")
    assert "the_cauldron" in listed.stdout, listed.stderr


def test_a_module_of_ours_is_run_from_the_folder_of_another_project(installed):
    said = installed.run("python", "-m", "vlmill.pipeline.cli", "--version")
    assert str(installed.package) in said.stdout, said.stderr


@pytest.mark.parametrize("installed", ["wheel"], indirect=True)
def test_workers_of_ray_import_ours(installed):
    built = installed.run("vlmill", "build", "quickstart", "--out", "on-ray", "--until", "survey", "--workers", 1)
    assert built.returncode == 0, built.stderr
    assert (installed.folder / "on-ray/steps/quiz/survey/manifest.json").is_file()


def test_torchrun_imports_ours(installed):
    torchrun = ("python", "-m", "torch.distributed.run", "--nproc-per-node", 1, "-m", "vlmill.pipeline.cli")
    said = installed.run(*torchrun, "train", "no-run", OMP_NUM_THREADS="1")
    assert "no-run holds no run" in said.stderr, said.stderr
    assert "another project" not in said.stderr


@pytest.mark.parametrize("installed", ["editable"], indirect=True)
def test_type_checkers_find_the_code(installed, tmp_path):
    """Also that of modules behind links. Other packages are not followed: to check torch takes minutes."""
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\nfollow_imports = skip\n[mypy-vlmill,vlmill.*]\nfollow_imports = normal\n")
    script = "import vlmill; reveal_type(vlmill.build); reveal_type(vlmill.Drop(1).node)"
    place = ("--python-executable", installed.bin / "python", "--cache-dir", os.devnull, "--config-file", config)
    mypy = [sys.executable, "-m", "mypy", *place, "-c", script]
    done = subprocess.run(mypy, cwd=installed.folder, capture_output=True, text=True, check=False)
    assert "-> vlmill.api.runs.Run" in done.stdout, done.stdout + done.stderr
    assert 'Revealed type is "int"' in done.stdout
    assert done.returncode == 0, done.stdout
