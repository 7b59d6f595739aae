"""Characters that look like those of JSON and are others: blanks, quotes, marks; and how messages name them."""

import json
import re
import unicodedata

# What has no width: editors show nothing there.
_NO_WIDTH = "\u180e\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
BLANKS = f"\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000{_NO_WIDTH}"
"""Blanks that JSON does not know, for the brackets of a regular expression."""
DOUBLE = "\u201c\u201d\u201e\u201f\u00ab\u00bb\uff02"
SINGLE = "\u2018\u2019\u201a\u201b\u2039\u203a"
QUOTES = DOUBLE + SINGLE
"""Typographic quotes, as word processors and chats put them in the place of straight ones."""
WIDE = "\uff1a\uff0c\uff1b\uff5b\uff5d\uff3b\uff3d"
PLAIN_MARKS = dict(zip(WIDE, ":,;{}[]", strict=True))
"""Full-width marks of East Asian keyboards, and those that JSON has."""
CONTROL = re.compile(r"[\x00-\x1f]")


def escaped(inside: str) -> str:
    """The inside of a text with its control characters as JSON writes them."""
    return CONTROL.sub(lambda match: json.dumps(match[0])[1:-1], inside)


def control_said(character: str) -> str:
    """What to do about a control character in a text."""
    name = "a tab" if character == "\t" else f"a control character (U+{ord(character):04X})"
    return f"{name} inside a text; write {escaped(character)}"


def blank_said(character: str) -> str:
    """What a blank is, and what to do about it."""
    name = unicodedata.name(character, "control character").lower()
    todo = "type it anew" if instead_of_blank(character) else "remove it"
    return f"a space that is no plain one ({name}, U+{ord(character):04X}); {todo}"


def instead_of_blank(character: str) -> str:
    """A plain space, and nothing where there is none to be seen."""
    return "" if character in _NO_WIDTH else " "
