"""How deep a msgpack document is nested, without reading it into objects."""

from __future__ import annotations

__all__ = ["depth_of"]

# Bytes of the length field, then of the content that follows the head, by first byte.
_FIXED = {
    0xC0: 0, 0xC1: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8,
    0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8, 0xD4: 2, 0xD5: 3, 0xD6: 5, 0xD7: 9, 0xD8: 17,
}  # fmt: skip
_SIZED = {
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1),
    0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0),
}  # fmt: skip
_CONTAINERS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def depth_of(document: bytes) -> int:
    """The deepest nesting of arrays and maps; extensions count as leaves.

    A document that is cut off is measured as far as it goes.
    """
    place, end = 0, len(document)
    open_items: list[int] = []
    deepest = 0
    while place < end:
        head = document[place]
        place += 1
        items = 0
        if head >= 0xE0 or head < 0x80:
            pass
        elif head < 0xA0:
            items = head & 0x0F if head >= 0x90 else 2 * (head & 0x0F)
        elif head < 0xC0:
            place += head & 0x1F
        elif head in _CONTAINERS:
            size, each = _CONTAINERS[head]
            items = each * int.from_bytes(document[place : place + size], "big")
            place += size
        elif head in _FIXED:
            place += _FIXED[head]
        else:
            size, more = _SIZED[head]
            place += size + more + int.from_bytes(document[place : place + size], "big")
        if open_items:
            open_items[-1] -= 1
        if items:
            open_items.append(items)
            deepest = max(deepest, len(open_items))
        while open_items and not open_items[-1]:
            open_items.pop()
        if not open_items:
            break
    return deepest
