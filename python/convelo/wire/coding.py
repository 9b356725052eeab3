"""What the encoders and decoders of all wires have in common."""

from __future__ import annotations

import sys
import threading
from collections.abc import MutableMapping
from typing import Any

import ormsgpack

from convelo.exceptions import AmbiguousDict
from convelo.wire import dangerous
from convelo.wire.errors import TooDeep, UnknownType
from convelo.wire.plugins import PLUGINS
from convelo.wire.plugins.numpy import is_array
from convelo.wire.state import Function, State

__all__ = [
    "PLAIN",
    "ROOM",
    "Decoder",
    "Encoder",
    "Unsendable",
    "current_encoder",
    "full_name",
    "holds_array",
    "is_arrow",
    "is_foreign",
]

PLAIN = frozenset((str, float, bool, type(None)))
"""Exact types that no wire changes and no option affects, except for surrogates in a str."""

ROOM = 994
"""How much nesting a decoder accepts: lists and dicts take 2, tuples 3.

So 497 lists or 331 tuples arrive, which is where the genuine package's decoder ends.
"""

_LEVEL = 2
_TUPLE_LEVEL = 3
_CONTAINERS = frozenset((list, dict))
_NESTING = frozenset((list, dict, tuple))
_MANY_SCALARS = 64

_MOST_SEARCHED = 100_000
_LONGEST_KEY = 40

_LIBRARIES = {
    name: plugin.libraries[0]
    for plugin in PLUGINS
    if plugin.libraries
    for codec in plugin.codecs
    for name in codec.types
}
"""Which library a class of that name must be from."""

_ADVICE = (
    "register (de)serializers for the class with Serialization.register_class, or call "
    "convelo.register_extras for sets, decimals, dataclasses and the like"
)

_running = threading.local()

_packb = ormsgpack.packb


def current_encoder() -> Encoder | None:
    """The encoder for which a registered serializer is working in this thread."""
    return getattr(_running, "encoder", None)


def holds_array(value: Any) -> bool:
    """Whether a numpy array is in ``value``, looking into lists, tuples and dicts."""
    pending = [value]
    while pending:
        item = pending.pop()
        kind = type(item)
        if kind is dict:
            item = item.values()
        elif kind is not list and kind is not tuple:
            if is_array(item):
                return True
            continue
        kinds = set(map(type, item))
        if any(kind.__name__ == "ndarray" for kind in kinds):
            return True
        if not kinds.isdisjoint(_NESTING):
            pending.extend(inner for inner in item if type(inner) in _NESTING)
    return False


class Unsendable(NotImplementedError):
    """A value has no form on the wire, and why."""

    def __init__(self, value: Any, reason: str) -> None:
        super().__init__(reason)
        self.value = value


def full_name(kind: type) -> str:
    """A class as a person looks it up."""
    return kind.__qualname__ if kind.__module__ == "builtins" else (
        f"{kind.__module__}.{kind.__qualname__}"
    )


def is_arrow(value: Any) -> bool:
    """Whether ``value`` gives its content as Arrow, and is not one of pandas' objects."""
    return hasattr(type(value), "__arrow_c_stream__") and not _is_from(value, "pandas")


def is_foreign(value: Any) -> bool:
    """Whether the class of ``value`` only shares its name with one of a library that we know."""
    kind = type(value)
    library = _LIBRARIES.get(kind.__name__)
    # Classes written in C may not say where they are from, as gmpy2's before 2.2.
    return library is not None and kind.__module__ != "builtins" and not _is_from(value, library)


def _is_from(value: Any, library: str) -> bool:
    modules = (kind.__module__.partition(".")[0] for kind in type(value).__mro__)
    return library in modules


def _place_of(wanted: Any, root: Any) -> str:
    """Where ``wanted`` is in ``root``, as one would write it in Python; what ``root`` is itself
    needs no place, and what is inside other objects has none."""
    pending = [("message", root)]
    searched = 0
    while pending and searched < _MOST_SEARCHED:
        place, item = pending.pop()
        if item is wanted:
            return "" if item is root else f" at {place}"
        if isinstance(item, dict):
            inner = [(f"{place}[{_shortened(key)}]", part) for key, part in item.items()]
        elif isinstance(item, list | tuple):
            inner = [(f"{place}[{index}]", part) for index, part in enumerate(item)]
        else:
            continue
        searched += len(inner)
        pending.extend(reversed(inner))
    return ""


def _shortened(key: Any) -> str:
    text = repr(key)
    return text if len(text) <= _LONGEST_KEY else text[: _LONGEST_KEY - 1] + "…"


class Encoder:
    """Packs one value. Made for each message.

    ormsgpack would pack numpy arrays itself, big-endian ones wrongly, and scalars with them. So it
    is told not to, and :meth:`hook` sees both. If a message holds many scalars and no array,
    ormsgpack packs it again alone.
    """

    no_arrow = (
        "this peer's wire has no form for Arrow data; send a pandas frame, such as "
        "value.to_pandas()"
    )

    __slots__ = (
        "_alone",
        "_root",
        "_scalars",
        "error",
        "innermost",
        "option",
        "options",
        "serializers",
        "state",
    )

    def __init__(self, state: State, options: Any, option: int | None) -> None:
        self.state = state
        self.options = options
        self.option = option
        self.serializers: MutableMapping[str, Function] = state.serializers()
        self.error: Exception | None = None
        self.innermost: TypeError | None = None
        self._root: Any = None
        self._scalars = 0
        self._alone = False

    def wrap(self, value: Any, options: Any) -> Any:
        """What stands for ``value`` on this wire, by its registered serializer."""
        raise NotImplementedError

    def array(self, value: Any) -> Any:
        """What stands for a numpy array on this wire, or ``None`` to use its serializer."""
        raise NotImplementedError

    def pack(self, value: Any) -> bytes:
        """Packs ``value``.

        Raises:
            TypeError: something in it has no serializer, or cannot be written. What its
                serializer raised is the cause.
        """
        numpy = ormsgpack.OPT_SERIALIZE_NUMPY
        option = self.option
        try:
            if option is None or not option & numpy:
                return _packb(value, self.hook, option)
            self._root = value
            try:
                return _packb(value, self.hook, option & ~numpy)
            except TypeError:
                if not self._alone:
                    raise
            self.restart()
            return _packb(value, self.hook, option)
        except TypeError as error:
            if isinstance(self.error, AmbiguousDict):
                raise self.error from None
            if isinstance(self.error, Unsendable):
                raise TypeError(_unsendable(self.error, value)) from None
            raise self.explain(self.innermost or error) from self.error

    def restart(self) -> None:
        """Forgets what was packed so far."""
        self.error = self.innermost = None

    def explain(self, error: TypeError) -> TypeError:
        """Says what can be done about ``error``."""
        if isinstance(self.error, RecursionError):
            return TypeError("Recursion limit reached")
        if "Dict key" in str(error):
            error.add_note("Keys other than str need OPT_NON_STR_KEYS on both sides.")
        return error

    def hook(self, value: Any) -> Any:
        """What ormsgpack calls for what it cannot pack itself."""
        try:
            kind = type(value)
            if kind.__module__ == "numpy" and self.option and (
                self.option & ormsgpack.OPT_SERIALIZE_NUMPY
            ):
                found = self._numpy(value, kind)
                if found is not None:
                    return found
            return self.wrap(value, self.options)
        except Exception as error:
            # ormsgpack says which type, but not why.
            if self.error is None:
                self.error = error
            raise

    def _numpy(self, value: Any, kind: type) -> Any:
        if kind.__name__ == "ndarray":
            return self.array(value)
        numpy = sys.modules.get("numpy")
        if self._alone or numpy is None or not isinstance(value, numpy.generic):
            return None
        self._scalars += 1
        if self._scalars == _MANY_SCALARS and not holds_array(self._root):
            self._alone = True
            raise TypeError("many scalars and no array: ormsgpack is faster alone")
        try:
            return ormsgpack.Fragment(_packb(value, None, self.option))
        except TypeError:
            return None

    def serialize(self, value: Any, options: Any) -> tuple[str, Any, bool]:
        """The name of the type of ``value``, its data, and whether the serializer is built in.

        Raises:
            NotImplementedError: no serializer is registered, and pickle is off.
        """
        name = value.__class__.__name__
        function = self.serializers.get(name)
        core = getattr(function, "core", None)
        if core is not None and is_foreign(value):
            function = core = None
        if function is None:
            if self.state.dangerous_pickle(options):
                return name, dangerous.dumps(value), True
            if is_arrow(value):
                raise Unsendable(value, self.no_arrow)
            raise Unsendable(value, _ADVICE)
        if core is not None:
            return name, core(value, self), True
        previous = current_encoder()
        _running.encoder = self
        try:
            data = self.state.call(function, value, options)
        finally:
            _running.encoder = previous
        if self._alone and holds_array(data):
            data = ormsgpack.Fragment(self.nested(data))
        return name, data, False

    def nested(self, value: Any) -> bytes:
        """Packs a part of the message as a document of its own, arrays by :meth:`array`."""
        option = self.option
        if option is not None:
            option &= ~ormsgpack.OPT_SERIALIZE_NUMPY
        try:
            return _packb(value, self.hook, option)
        except TypeError as error:
            # The outer documents would name the types around the one that must be changed.
            if self.innermost is None:
                self.innermost = error
            raise


def _unsendable(error: Unsendable, message: Any) -> str:
    """As the genuine package begins it, and then what helps."""
    kind = type(error.value)
    name, full = kind.__name__, full_name(kind)
    what = name if full == name else f"{name} ({full})"
    place = _place_of(error.value, message)
    return f"Type is not msgpack serializable: {what}{place}: {error}"


class Decoder:
    """Turns what ormsgpack unpacked into the values that were sent. Made for each message.

    Works in place, unless ``copying``: then its input is unchanged.
    """

    __slots__ = ("copying", "deserializers", "options", "state")

    def __init__(self, state: State, options: Any, *, copying: bool = False) -> None:
        self.state = state
        self.options = options
        self.copying = copying
        self.deserializers: MutableMapping[str, Function] = state.deserializers()

    def restore(self, value: Any, room: int = ROOM) -> Any:
        """``value`` with its wrapped objects restored, depth first.

        Raises:
            UnknownType: a wrapper names a type that is not registered.
            TooDeep: it is nested deeper than ``room`` allows.
        """
        # One frame for each level: 497 levels and the caller fit into Python's own limit.
        build = function = None
        wrapped = False
        if isinstance(value, dict):
            if "type" in value and "data" in value:
                name = value["type"]
                value = value["data"]
                wrapped = True
                function = self.deserializers.get(name) if isinstance(name, str) else None
                core = getattr(function, "core", None)
                if isinstance(value, list):
                    build = getattr(core, "build", None)
        elif not isinstance(value, list):
            return value
        if isinstance(value, dict):
            room -= _LEVEL
            if room < 0:
                raise _too_deep()
            if self.copying:
                value = value.copy()
            if not _CONTAINERS.isdisjoint(map(type, value.values())):
                for key, item in value.items():
                    if type(item) in _CONTAINERS:
                        value[key] = self.restore(item, room)
        elif build is not None or not wrapped:
            room -= _TUPLE_LEVEL if wrapped else _LEVEL
            if room < 0:
                raise _too_deep()
            if self.copying:
                value = value.copy()
            if not _CONTAINERS.isdisjoint(map(type, value)):
                for index, item in enumerate(value):
                    if type(item) in _CONTAINERS:
                        value[index] = self.restore(item, room)
        if not wrapped:
            return value
        if build is not None:
            return build(value)
        if function is None:
            if self.state.dangerous_pickle(self.options):
                return dangerous.loads(value)
            raise UnknownType(name, value)
        if core is not None:
            return core(value, self)
        return self.state.call(function, value, self.options)


def _too_deep() -> TooDeep:
    return TooDeep(
        "what arrived is nested too deep: expected at most 497 lists or dicts, or 331 tuples, in "
        "each other"
    )
