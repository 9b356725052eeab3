"""Registers the types that the package knows."""

from __future__ import annotations

import importlib
from types import ModuleType

from convelo.compat.tno.exceptions import OptionalImportError
from convelo.wire.plugins import PLUGINS as KNOWN

__all__ = ["PLUGINS", "PLUGINS_STR", "register_defaults"]

PLUGINS_STR = [f"{__package__}.{plugin.module}" for plugin in KNOWN]
PLUGINS: list[ModuleType] = []
"""The modules whose library is installed, once :func:`register_defaults` was called."""


def register_defaults() -> None:
    """Registers the types of every library that is installed.

    Raises:
        RepetitionError: one of them is registered already.
    """
    if not PLUGINS:
        for name in PLUGINS_STR:
            try:
                PLUGINS.append(importlib.import_module(name))
            except OptionalImportError:
                continue
    for plugin in PLUGINS:
        plugin.register()
