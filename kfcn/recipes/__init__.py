"""Recipes: one file for each result, with its run card and its settings.

A recipe is a module without heavy imports. Its docstring is the run card: the first line says
what, then come `Command:`, `Data:`, `Hardware:`, `Time:` and `Metric:`, and where the settings
come from. `SETTINGS` are fields of `kfcn.training.settings.Settings`; `STAGES` is a tuple of such,
each of which starts from the net of the one before.
"""

import importlib
import pkgutil
from typing import Any

from kfcn.errors import UsageError


def names() -> list[str]:
    """All recipes, in the order of the alphabet."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def card(name: str) -> str:
    """The run card of a recipe.

    Raises:
        UsageError: there is no such recipe.
    """
    return _module(name).__doc__ or ""


def stages(name: str) -> tuple[dict[str, Any], ...]:
    """The settings of each stage of a recipe; one stage where it has no several.

    Raises:
        UsageError: there is no such recipe.
    """
    module = _module(name)
    return getattr(module, "STAGES", None) or (module.SETTINGS,)


def settings(name: str) -> dict[str, Any]:
    """What the recipe NAME, or the stage N of one as "NAME/N", puts in the place of defaults.

    Raises:
        UsageError: there is no such recipe or stage.
    """
    recipe, _, stage = name.partition("/")
    several = stages(recipe)
    numbers = {str(number): values for number, values in enumerate(several, start=1)}
    if len(several) == 1:
        numbers = {"": several[0]}
    if stage not in numbers:
        raise UsageError(
            f"recipe {name!r}: expected {' or '.join(f'{recipe}/{n}'.rstrip('/') for n in numbers)}"
        )
    return numbers[stage]


def _module(name: str):
    if name not in names():
        raise UsageError(f"unknown recipe {name!r}; expected one of {', '.join(names())}")
    return importlib.import_module(f"{__name__}.{name}")
