"""The values of the compatible wires: what ``tno.mpc.communication`` 4.x and 5.x send.

Both versions write values alike, and differ in the envelope around them, which the transport makes.
A value is a msgpack document. What msgpack has no form for is a *wrapper*, the map
``{"type": <class name>, "data": ...}``; so a user's dict with these two keys cannot be told from
one, and :func:`encode_value` refuses it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ormsgpack

from convelo._convelo import count_wrappers
from convelo._untrusted import showable
from convelo.exceptions import AmbiguousDict, BodyError
from convelo.wire import dangerous
from convelo.wire.budget import Budget, is_scalar
from convelo.wire.coding import PLAIN, Decoder, Encoder
from convelo.wire.errors import TooDeep, Undecodable
from convelo.wire.plugins import numpy as numpy_plugin
from convelo.wire.state import DEFAULT_PACK_OPTION, State, default_state

__all__ = [
    "DEFAULT_PACK_OPTION",
    "LARGE",
    "MAX_VALUE",
    "CompatibleDecoder",
    "CompatibleEncoder",
    "Encoded",
    "decode_value",
    "encode_value",
    "flat",
]

LARGE = 4096
"""From this size on, in bytes, a bytes object is passed on instead of copied."""

MAX_VALUE = (1 << 32) - 1
"""The longest bytes object that msgpack can hold, in bytes."""

Encoded = bytes | tuple[bytes, bytes | memoryview]
"""A value, in one piece or in two consecutive ones."""

_packb = ormsgpack.packb
_unpackb = ormsgpack.unpackb
_BUFFERS = frozenset((bytes, bytearray, memoryview))
_ENDLESS_LOOK = 100_000


class CompatibleEncoder(Encoder):
    """Packs a value for peers of either version.

    ``strict`` counts the wrappers it makes: a document that holds more has a user's dict that
    would arrive as something else.
    """

    __slots__ = ("made", "strict")

    def __init__(
        self, state: State, options: Any, option: int | None, *, strict: bool = False
    ) -> None:
        super().__init__(state, options, option)
        self.strict = strict
        self.made = 0

    def restart(self) -> None:
        super().restart()
        self.made = 0

    def compatible(self) -> CompatibleEncoder:
        """An encoder for a document inside this one."""
        return CompatibleEncoder(self.state, self.options, self.option, strict=self.strict)

    def wrap(self, value: Any, options: Any) -> dict[str, Any]:
        name, data, builtin = self.serialize(value, options)
        if self.strict:
            # What only looks like a wrapper in ``data``, the receiver hands to the class unchanged.
            self.made += 1 + _lookalikes(data, in_list=not builtin)
        return {"type": name, "data": data}

    def array(self, value: Any) -> Any:
        packed = self.plain_array(value)
        return None if packed is None else ormsgpack.Fragment(packed)

    def plain_array(self, value: Any) -> bytes | None:
        """``value`` as nested msgpack arrays; ``None`` where only its serializer has a form."""
        if not value.dtype.isnative and value.flags.c_contiguous:
            # ormsgpack reads bytes in a foreign order as if they were native.
            value = value.astype(value.dtype.newbyteorder("="))
        try:
            return _packb(value, None, self.option)
        except TypeError:
            return None


def _lookalikes(data: Any, *, in_list: bool) -> int:
    """How many dicts in what a serializer returned only look like wrappers.

    The receiver decodes the values of a dict, so only the dict itself is safe; it does not decode a
    list at all, unless the deserializer of a built-in type does.
    """
    if isinstance(data, dict):
        return int("type" in data and "data" in data)
    if not in_list or not isinstance(data, list):
        return 0
    found = 0
    pending: list[Any] = [data]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            found += "type" in item and "data" in item
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
    return found


class CompatibleDecoder(Decoder):
    """Restores a value that came from a peer of either version."""

    __slots__ = ()

    def wrapped(self, item: dict[str, Any]) -> Any:
        """The object that a wrapper stands for."""
        return self.restore(item)

    def built(self, core: Callable[..., Any], data: Any) -> Any:
        """What ``core`` makes of the data in a wrapper."""
        return core(self.restore(data) if isinstance(data, dict) else data, self)


def encode_value(
    value: Any,
    *,
    wire: int = 4,
    state: State | None = None,
    option: int | None = DEFAULT_PACK_OPTION,
    use_pickle: bool = False,
    **keywords: Any,
) -> Encoded:
    """The msgpack document of ``value``, without the envelope.

    Large bytes objects come back as ``(head, value)``, not copied: they must not change before the
    message is acknowledged.

    Args:
        wire: 4 or 5; both write a value alike.
        state: the registered serializers; without it those of the 4.x API.
        option: ormsgpack's options.
        use_pickle: has no effect but a warning; see :mod:`convelo.wire.dangerous`.
        keywords: what serializers of the 4.x API get, such as ``destination``.

    Raises:
        TypeError: something in ``value`` has no serializer, or is too large for this wire.
        AmbiguousDict: a dict in ``value`` has both keys ``type`` and ``data``.
    """
    kind = type(value)
    if kind in PLAIN:
        return _packb(value, None, option)
    if kind is int:
        try:
            return _packb(value, None, option)
        except TypeError:
            pass
    elif kind in _BUFFERS:
        size = value.nbytes if kind is memoryview else len(value)
        if size < LARGE:
            return _packb(value, None, option)
        return _head(size), flat(value)
    if wire not in (4, 5):
        raise ValueError(f"the compatible wires are 4 and 5, not {wire}")
    if use_pickle:
        dangerous.warn_ignored()
    if state is None:
        state = default_state()
    encoder = CompatibleEncoder(state, state.sending(keywords), option, strict=True)
    if kind.__name__ == "ndarray" and numpy_plugin.is_array(value) and _packs_numpy(option):
        plain = encoder.plain_array(value)
        if plain is not None:
            return plain
    packed = encoder.pack(value)
    made = encoder.made
    # The key can be elsewhere too, in strings or bytes; then only counting the maps tells.
    if (
        packed.count(b"\xa4data") > made
        and packed.count(b"\xa4type") > made
        and count_wrappers(packed) > made
    ):
        raise ambiguous(value)
    return packed


def _packs_numpy(option: int | None) -> bool:
    return option is not None and bool(option & ormsgpack.OPT_SERIALIZE_NUMPY)


def _head(size: int) -> bytes:
    if size > MAX_VALUE:
        raise TypeError(
            f"the compatible wire carries at most {MAX_VALUE} bytes in one value, not {size}: send "
            "it in parts, or use convelo on both sides"
        )
    if size < 1 << 16:
        return b"\xc5" + size.to_bytes(2, "big")
    return b"\xc6" + size.to_bytes(4, "big")


def flat(value: bytes | bytearray | memoryview) -> bytes | memoryview:
    """``value`` as bytes in one piece, copied only where its own are not."""
    if isinstance(value, bytes):
        return value
    view = memoryview(value)
    if not view.c_contiguous:
        return view.tobytes()
    return view.cast("B")


def ambiguous(value: Any) -> AmbiguousDict:
    """The error for ``value``, in which a dict looks like a wrapper; says where that is."""
    place = _find_lookalike(value)
    where = f" at message{place}" if place is not None else " made by a serializer"
    return AmbiguousDict(
        f"The dict{where} has both keys 'type' and 'data'. On the compatible wire they mark a "
        "wrapped object, so it would arrive as something else or not at all. Rename one of the "
        "keys, send the dict as a list of pairs, or use convelo on both sides."
    )


def _find_lookalike(value: Any) -> str | None:
    pending = [(value, "")]
    for _ in range(_ENDLESS_LOOK):
        if not pending:
            break
        item, place = pending.pop()
        if isinstance(item, dict):
            if "type" in item and "data" in item:
                return place
            pending.extend((inner, f"{place}[{key!r}]") for key, inner in item.items())
        elif isinstance(item, list | tuple):
            pending.extend((inner, f"{place}[{index}]") for index, inner in enumerate(item))
    return None


def decode_value(
    document: bytes | bytearray | memoryview,
    *,
    wire: int = 4,
    state: State | None = None,
    option: int | None = None,
    use_pickle: bool = False,
    **keywords: Any,
) -> Any:
    """The value that a msgpack document holds.

    Lists that a peer sent as numpy arrays arrive as lists: the compatible wire does not say which
    they were.

    Args:
        wire: 4 or 5; both write a value alike.
        state: the registered deserializers; without it those of the 4.x API.
        option: ormsgpack's options.
        use_pickle: has no effect but a warning; see :mod:`convelo.wire.dangerous`.
        keywords: what deserializers of the 4.x API get, such as ``origin``.

    Raises:
        BodyError: it cannot be decoded: malformed, of a type that is not registered here
            (:class:`~convelo.wire.errors.UnknownType`), nested too deep
            (:class:`~convelo.wire.errors.TooDeep`), standing for too much memory
            (:class:`~convelo.wire.errors.TooLarge`), or refused by its deserializer, whose
            exception is the cause.
    """
    budget = Budget(len(document))
    try:
        if is_scalar(document):
            return _unpackb(document, option=option)
        budget.pay_document(document, option)
        value = _unpackb(document, option=option)
    except BodyError:
        raise
    except (IndexError, ValueError) as error:
        raise Undecodable(f"what arrived is not a msgpack document: {error}") from error
    if wire not in (4, 5):
        raise ValueError(f"the compatible wires are 4 and 5, not {wire}")
    if use_pickle:
        dangerous.warn_ignored()
    if state is None:
        state = default_state()
    decoder = CompatibleDecoder(state, state.receiving(keywords))
    try:
        with budget:
            return decoder.restore(value)
    except (BodyError, MemoryError):
        raise
    except RecursionError as error:
        raise TooDeep("what arrived is nested too deep for the calls already running") from error
    except Exception as error:
        raise BodyError(
            f"a deserializer refused what arrived: {type(error).__name__}: {error}"
        ) from showable(error)
