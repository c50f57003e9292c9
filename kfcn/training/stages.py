"""What one call of `train` trains: a run, or the stages of a recipe one after the other."""

import dataclasses
from pathlib import Path
from typing import Any

from kfcn import recipes
from kfcn.errors import KfcnError, UsageError
from kfcn.training.resolution import continued, resolve
from kfcn.training.run_folder import RunFolder
from kfcn.training.settings import Settings


@dataclasses.dataclass(frozen=True)
class Stage:
    """A run that is to be trained, or is already."""

    config: Settings
    run: RunFolder

    @property
    def finished(self) -> bool:
        return self.run.finished

    @property
    def same(self) -> bool:
        """Whether the folder holds a run of these settings."""
        try:
            stored = self.run.stored_settings()
        except KfcnError:
            return False
        if stored is not None and self.config.epochs is None:  # what its data made of it
            return stored == dataclasses.replace(self.config, epochs=stored.epochs)
        return stored == self.config


def plan(run_dir: Path | str | None, given: dict[str, Any]) -> list[Stage]:
    """The runs of a call, in their order; the settings of all are checked.

    The stages of a recipe go to `RUN/1-fcn32s`, `RUN/2-fcn16s` and so on, each from the one before.

    Args:
        run_dir: folder of the run. None for `runs/RECIPE` or `runs/DATA-ARCH`, with `-2` and so on
            where that is taken. A folder is not taken by an unfinished run of the same settings:
            that is the one to go on with, so that the same command resumes it.
        given: fields of `Settings`; None means "not given".

    Raises:
        UsageError: settings that make no sense, or differ from those of the run.
        KfcnError: a run folder that is damaged.
    """
    if run_dir is not None:
        return _in_folder(Path(run_dir), given, look=True)
    name = given.get("recipe")
    if name is None:
        config = resolve(**given)
        name = f"{config.source.file_name}-{config.arch}"
    path, number = Path("runs") / name, 2
    while path.exists() and not _unfinished(_in_folder(path, given, look=False)):
        path, number = Path("runs") / f"{name}-{number}", number + 1
    return _in_folder(path, given, look=True)


def _in_folder(path: Path, given: dict[str, Any], look: bool) -> list[Stage]:
    """The stages with their folders under `path`; `look` for what is stored there already."""
    name = given.get("recipe")
    several = recipes.stages(name) if name and "/" not in name else ({},)
    if len(several) == 1:
        run = RunFolder(path)
        return [Stage(_settings(run, run.stored_settings() if look else None, given), run)]
    if given.get("arch"):
        raise UsageError(f"recipe {name} says the arch of each of its stages; leave arch out")
    found, start = [], given.get("init_from")
    for number, stage in enumerate(several, start=1):
        run = RunFolder(path / f"{number}-{stage['arch']}")
        stored = run.stored_settings() if look else None
        # What a started stage began from is stored with it, and may have moved since.
        begin = None if stored and number > 1 else start
        asked = {**given, "recipe": f"{name}/{number}", "init_from": begin}
        if number > 1:  # later stages start from the one before
            asked.pop("weights", None)
        config = _settings(run, stored, asked)
        found.append(Stage(config, run))
        start = run.path
    return found


def _settings(run: RunFolder, stored: Settings | None, given: dict[str, Any]) -> Settings:
    return resolve(**given) if stored is None else continued(stored, given, run.path)


def _unfinished(found: list[Stage]) -> bool:
    there = [stage for stage in found if stage.run.path.exists()]
    return bool(there) and all(stage.same for stage in there) and not found[-1].finished
