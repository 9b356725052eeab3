"""The functions for known types, as an API calls them."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType

from convelo.exceptions import OptionalImportError
from convelo.wire.optional import available, require
from convelo.wire.plugins import PLUGINS
from convelo.wire.state import Function, State, builtin, register

__all__ = ["functions_of", "modules_of", "register_defaults"]

_BY_NAME = {plugin.name: plugin for plugin in PLUGINS}
_INSTALLED = [plugin.name for plugin in PLUGINS if all(map(available, plugin.libraries))]


@functools.cache
def functions_of(state: State, name: str) -> tuple[Function, ...]:
    """The serializers and deserializers of a plugin in turn, and a function that registers them.

    Raises:
        OptionalImportError: a library that it needs is not installed.
    """
    plugin = _BY_NAME[name]
    for library in plugin.libraries:
        require(library)
    functions: list[Function] = []
    for codec in plugin.codecs:
        for role, core, face in (
            ("serialize", codec.serialize, state.serializer(codec.serialize)),
            ("deserialize", codec.deserialize, state.deserializer(codec.deserialize)),
        ):
            face.__name__ = face.__qualname__ = f"{name}_{role}{codec.suffix}"
            face.__module__ = f"{state.package}.{name}"
            face.__doc__ = core.__doc__
            functions.append(builtin(core)(face))

    def register_types() -> None:
        for codec, serializer, deserializer in zip(
            plugin.codecs, functions[::2], functions[1::2], strict=True
        ):
            register(state, serializer, deserializer, codec.types)

    return (*functions, register_types)


def register_defaults(state: State) -> None:
    """Registers the types of every library that is installed.

    Raises:
        RepetitionError: one of them is registered already.
    """
    for name in _INSTALLED:
        functions_of(state, name)[-1]()


def modules_of(state: State) -> tuple[list[str], list[ModuleType]]:
    """The names of an API's modules for all plugins, and those whose libraries are installed."""
    names = [f"{state.package}.{plugin.name}" for plugin in PLUGINS]
    modules = []
    for name in names:
        try:
            modules.append(importlib.import_module(name))
        except OptionalImportError:
            continue
    return names, modules
