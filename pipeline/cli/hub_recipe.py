"""A dataset on the Hugging Face Hub in the place of a recipe: `vlmill build hf://datasets/OWNER/NAME`.

The shipped recipe of this dataset is taken, else one that is written into this folder as `vlmill new` does, where it is
found again.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from vlmill.pipeline.cli.arguments import console
from vlmill.pipeline.core.errors import RecipeError, SourceError
from vlmill.pipeline.core.files import write_atomically
from vlmill.pipeline.inputs.hub_files import is_hub
from vlmill.pipeline.recipe.mapping import read_mapping


def take_recipe(recipe: str, *, writes: bool = True, said: bool = True) -> str:
    """The recipe that a command is given; of a dataset on the Hub, the one that reads it.

    Args:
        recipe: as it was given.
        writes: whether the command may write a recipe.
        said: whether it is printed which one is taken.

    Raises:
        RecipeError: several shipped recipes read it, a file of another recipe has its name, or one would be written.
        SourceError: the dataset is not to be had, or no kind reads it.
    """
    if not is_hub(recipe):
        return recipe
    place, shipped = recipe.rstrip("/"), list_shipped(recipe)
    if len(shipped) > 1:
        raise RecipeError(f"{place}: the shipped recipes {', '.join(shipped)} read it; name one of them in its place")
    if shipped:
        name, lines = shipped[0], [f"{place} is read by the shipped recipe {shipped[0]}"]
    else:
        name, lines = _take_proposal(place, writes=writes)
    for line in lines if said else ():
        console.print(line, markup=False, soft_wrap=True)
    return name


def list_shipped(place: str) -> list[str]:
    """The shipped recipes whose only source reads this dataset, sorted."""
    found = list[str]()
    for item in files("vlmill.recipes").iterdir():
        if not str(item).endswith(".yaml"):
            continue
        sources = read_mapping(Path(str(item))).get("sources") or {}
        roots = [str(block.get("root", "")) for block in sources.values() if isinstance(block, dict)]
        if len(roots) == 1 and is_hub(roots[0]) and _is_same(place, roots[0]):
            found.append(Path(str(item)).stem)
    return sorted(found)


def _is_same(place: str, root: str) -> bool:
    """Whether a place is the repository of a root; one that names a revision names the root's."""
    from vlmill.pipeline.inputs import hub

    (one, folder), (other, _) = hub.split_root(place.rstrip("/")), hub.split_root(root)
    return not folder and (one == other or ("@" not in one and one == other.partition("@")[0]))


def _take_proposal(place: str, *, writes: bool) -> tuple[str, list[str]]:
    """The file of the recipe that `vlmill new` writes for a dataset, and what to say of it.

    One that was written before is taken as it is.
    """
    from vlmill.pipeline.proposal.proposal import examine_place, name_place
    from vlmill.pipeline.proposal.recipe_text import begin_recipe, write_recipe
    from vlmill.pipeline.proposal.table import explain_nothing

    path = Path(f"{name_place(place)}.yaml")
    if path.exists():
        if not path.read_text("utf-8").startswith(begin_recipe(place)):
            raise RecipeError(
                f"{path} is there already, and was not written for {place}; name it in its place, or write another "
                f"with vlmill new {place} --out FILE"
            )
        return str(path), [f"{place} is read by {path}, which was written before"]
    if not writes:
        raise RecipeError(f"{place} has no recipe yet, and this command writes none; write one with vlmill new {place}")
    found = examine_place(place)
    if found.chosen is None:
        raise SourceError(explain_nothing(found))
    write_atomically(path, write_recipe([(found, found.chosen)], path))
    return str(path), [f"wrote {path}, by which {place} is read", *(f"Note: {note}" for note in found.notes)]
