"""Stand-ins for the published datasets that recipes name: small repositories in upstream's form, for a loopback Hub.

`write_standins` writes them and says of each input file what vlmill has to read and refuse; `fill_hub` puts them into a
`tests.helpers.hub.Hub`. The pictures that rows name by address or path lie beside the repositories, in a folder per
dataset:

    written = write_standins(folder, ["HuggingFaceM4/OBELICS", "HuggingFaceM4/the_cauldron/ai2d"], rows=8)
    with Hub() as hub:
        fill_hub(hub, written)

Everything is drawn from the names of repository and subset and a row's number, so the bytes are the same in every run.
Each entry of DATASETS says what of the form was looked up, where, and what is a guess; docs/datasets.md is made of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.hub import Hub
from tests.helpers.standins import chats, conversations, documents, interleaved, questions, tables, web
from tests.helpers.standins.dataset import Dataset
from tests.helpers.standins.tree import Contents, Tree
from tests.helpers.standins.web import ADDRESSES

__all__ = ["ADDRESSES", "DATASETS", "Contents", "Standin", "fill_hub", "write_standins"]

MODULES = (web, interleaved, questions, documents, conversations, tables, chats)

DATASETS: dict[str, Dataset] = {dataset.repository: dataset for module in MODULES for dataset in module.DATASETS}


@dataclass(frozen=True)
class Standin:
    """What was written for a dataset."""

    dataset: Dataset
    root: Path  # of the repository
    pictures: Path  # that rows name by path
    served: Path  # of all datasets; in the place of web.ADDRESSES
    files: Mapping[str, Contents]  # input file -> what has to be read of it

    def read_files(self) -> dict[str, bytes]:
        """Every file of the repository."""
        paths = sorted(path for path in self.root.rglob("*") if path.is_file())
        return {path.relative_to(self.root).as_posix(): path.read_bytes() for path in paths}


def write_standins(
    folder: Path, datasets: Iterable[str], rows: int | Mapping[str, int] = 4, *, odd: bool = True
) -> dict[str, Standin]:
    """Write the repositories of datasets below `folder`.

    Args:
        folder: Gets `hub/OWNER/NAME` and `pictures/OWNER/NAME`.
        datasets: `OWNER/NAME`, with all its subsets, or `OWNER/NAME/SUBSET`.
        rows: Good rows of each subset, or by `OWNER/NAME` or `OWNER/NAME/SUBSET`, the longer name first; 4 where
            nothing is said. A subset of 0 rows is left out.
        odd: Whether rows are among them that vlmill refuses.

    Raises:
        KeyError: there is no stand-in of this name.
    """
    written = dict[str, Standin]()
    for repository, subsets in _group_subsets(datasets).items():
        dataset = DATASETS[repository]
        counts = {subset: count for subset in subsets if (count := _count_rows(rows, repository, subset))}
        tree = Tree(repository, folder / "hub" / repository, folder / "pictures" / repository, odd, counts)
        dataset.write(tree, counts)
        written[repository] = Standin(dataset, tree.root, tree.pictures, folder / "pictures", dict(tree.files))
    return written


def fill_hub(hub: Hub, written: Mapping[str, Standin]) -> dict[str, str]:
    """Put stand-ins into a loopback Hub, those outside of the Hub as well; repository -> commit."""
    repositories = {name: hub.repository(name, standin.read_files()) for name, standin in written.items()}
    return {name: repository.branches["main"] for name, repository in repositories.items()}


def _group_subsets(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Repository -> its subsets that are wanted, in the order of the registry."""
    wanted = dict[str, set[str]]()
    for name in names:
        repository, subset = _split_name(name)
        wanted.setdefault(repository, set()).update([subset] if subset else DATASETS[repository].subsets)
    return {
        repository: tuple(subset for subset in DATASETS[repository].subsets if subset in chosen)
        for repository, chosen in wanted.items()
    }


def _split_name(name: str) -> tuple[str, str]:
    owner, repository, *rest = name.split("/", 2)
    dataset, subset = DATASETS[f"{owner}/{repository}"], "".join(rest)
    if subset and subset not in dataset.subsets:
        raise KeyError(f"{name}: {dataset.repository} has {', '.join(dataset.subsets)}")
    return dataset.repository, subset


def _count_rows(rows: int | Mapping[str, int], repository: str, subset: str) -> int:
    if isinstance(rows, int):
        return rows
    return rows.get(f"{repository}/{subset}", rows.get(repository, 4))
