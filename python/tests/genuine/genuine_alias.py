"""Answers imports of the genuine package by ours."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

GENUINE = "tno.mpc.communication"
_PARENTS = ("tno", "tno.mpc")
_FIXTURES = "pytest_tno.tno.mpc.communication.pytest_pool_fixtures"


class _Existing(Loader):
    """Gives an import a module that was imported under another name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._name)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just written the alias into it.
        module.__spec__ = self._spec


class _Empty(Loader):
    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        pass


class Aliases(MetaPathFinder):
    """Finds ``tno.mpc.communication`` and what is in it: ours, but for its tests.

    Args:
        ours: The module that takes its place.
        suite: The directory that takes the place of its package ``test``.
    """

    def __init__(self, ours: str, suite: Path) -> None:
        self._ours = ours
        self._suite = suite

    def install(self) -> None:
        """Makes it the first that is asked."""
        found = [name for name in sys.modules if name == GENUINE or name.startswith(GENUINE + ".")]
        if found:
            raise RuntimeError(f"{found[0]} was imported before it could be replaced")
        sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in _PARENTS or _FIXTURES.startswith(fullname + "."):
            return ModuleSpec(fullname, _Empty(), is_package=True)
        if fullname == _FIXTURES:
            return ModuleSpec(fullname, _Existing("convelo.testing"))
        if fullname != GENUINE and not fullname.startswith(GENUINE + "."):
            return None
        inner = fullname.removeprefix(GENUINE)
        if inner == ".test":
            spec = ModuleSpec(fullname, _Empty(), is_package=True)
            spec.submodule_search_locations = [str(self._suite)]
            return spec
        if inner.startswith(".test."):
            return None
        return ModuleSpec(fullname, _Existing(self._ours + inner), is_package=path is None)
