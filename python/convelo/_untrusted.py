"""Text that a peer wrote, or a library about a peer's bytes, and how an error shows it.

It is one line of bounded length in which nothing acts on a terminal, moves other text or hides.
The crate ``untrusted`` does the same for what Rust says.
"""

from __future__ import annotations

import unicodedata

__all__ = ["LONGEST", "shown", "showable"]

LONGEST = 2048
"""The longest text that is shown, in characters; the rest is cut."""

# Letters and symbols that are blank, and scripts from right to left, which move what is beside them.
_BLANK = frozenset("\u115f\u1160\u3164\uffa0\u2800")
_LEFTWARDS = (
    ("\u0590", "\u08ff"),
    ("\ufb1d", "\ufdff"),
    ("\ufe70", "\ufeff"),
    ("\U00010800", "\U00010fff"),
    ("\U0001e800", "\U0001efff"),
)


def shown(text: str) -> str:
    """``text`` with everything escaped that is not a plain character, line breaks included."""
    cut = text[:LONGEST]
    if not (cut.isascii() and cut.isprintable()):
        cut = "".join(
            character if _is_plain(character) else f"\\u{{{ord(character):x}}}" for character in cut
        )
    return cut if len(text) <= LONGEST else f"{cut}…"


def showable(error: BaseException) -> BaseException | None:
    """``error``, if it can be the cause of another one: a traceback prints what led to it as it is.

    ``None`` if its text, or that of what led to it, has more in it than plain characters and layout.
    """
    led: BaseException | None = error
    seen: set[int] = set()
    while led is not None and id(led) not in seen:
        seen.add(id(led))
        if not all(_is_plain(character) or character in "\n\t" for character in str(led)):
            return None
        led = led.__cause__ or (None if led.__suppress_context__ else led.__context__)
    return error


def _is_plain(character: str) -> bool:
    if " " <= character <= "~":
        return True
    # Letters, numbers, punctuation and symbols; not marks, separators, and what is no character.
    return (
        unicodedata.category(character)[0] in "LNPS"
        and character not in _BLANK
        and not any(first <= character <= last for first, last in _LEFTWARDS)
    )
