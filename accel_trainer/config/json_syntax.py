"""What is wrong with a text that is meant as JSON, in plain words: every slip, its place, and the text without them."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from accel_trainer.config.odd_characters import (
    BLANKS,
    CONTROL,
    DOUBLE,
    PLAIN_MARKS,
    QUOTES,
    SINGLE,
    WIDE,
    blank_said,
    control_said,
    escaped,
    instead_of_blank,
)

MAX_SLIPS, MAX_PLACES = 20, 5
_TOKEN = re.compile(
    rf"""(?P<space>[ \t\r\n{BLANKS}]+)
    |(?P<comment>\#[^\n]*|//[^\n]*|/\*.*?(?:\*/|\Z))
    |(?P<string>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'
        |[{DOUBLE}][^{DOUBLE}"\n]*[{DOUBLE}"]|[{SINGLE}][^{SINGLE}\n]*[{SINGLE}])
    |(?P<open_string>["'{QUOTES}][^\n]*)
    |(?P<word>[^\s"'{QUOTES}\[\]{{}}():,;=\#{WIDE}]+)
    |(?P<mark>.)""",
    re.VERBOSE | re.DOTALL,
)
_ODD_BLANK = re.compile(f"[{BLANKS}]")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_PYTHON_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_CONSTANTS = {"True": "true", "False": "false", "None": "null"}
_NO_NUMBERS = ("nan", "infinity", "inf")
_ESCAPE = re.compile(r'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_CLOSING = {"{": "}", "[": "]", "(": ")"}


@dataclass(frozen=True)
class Slip:
    """One slip. start, end: the characters that `instead` may stand for; is_certain: whether that is what was meant
    beyond doubt, so that a program may write it."""

    start: int
    end: int
    instead: str
    message: str
    is_certain: bool = False
    kind: str = ""
    """Of those of a kind one is shown, with the places of the others; "": each is."""
    at: int | None = None
    """Where it is, if that is not `start`."""
    key: str | None = None
    """The key whose value nobody can know, as `optimizer_args.lr`."""
    is_of_structure: bool = False
    """Whether it leaves open which keys belong into which object: what the text says beside it is not known."""

    @property
    def place(self) -> int:
        """The character that it is named by."""
        return self.start if self.at is None else self.at


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


def _odd_blank(start: int, character: str) -> Slip:
    kind = f"blank {character}"
    return Slip(start, start + 1, instead_of_blank(character), blank_said(character), is_certain=True, kind=kind)


class _Expects(Enum):
    VALUE = "a value"
    KEY = "a key"
    COLON = "a colon"
    COMMA = "a comma"
    END = "the end"


def find_slips(text: str) -> list[Slip]:
    """Every slip in a text, in its order; [] where it is JSON. After one that nothing helps, no more is looked for."""
    return sorted(_Reader(text).read(), key=lambda slip: slip.start)


def without(text: str, slips: Sequence[Slip]) -> str:
    """The text with what may stand for each slip; they are in their order."""
    parts, end = [], 0
    for slip in slips:
        parts += [text[end : slip.start], slip.instead]
        end = slip.end
    return "".join([*parts, text[end:]])


def described(text: str, slips: Sequence[Slip]) -> list[tuple[str, str | None]]:
    """A line for each slip, its place and what it is, and its key. Of those that are alike the first stands for all,
    with the places of some of the others."""
    alike: dict[str, list[Slip]] = {}
    for slip in slips:
        alike.setdefault(slip.kind, []).append(slip)
    firsts = {kind: of_kind[0] for kind, of_kind in alike.items()}
    shown = [slip for slip in slips if not slip.kind or firsts[slip.kind] is slip][:MAX_SLIPS]
    lines = []
    for slip in shown:
        others = alike[slip.kind][1:] if slip.kind else []
        more = f" ({len(others):,} more such: {_places(text, others)})" if others else ""
        lines.append((f"{position(text, slip.place)}: {slip.message}{more}", slip.key))
    return lines


def _places(text: str, slips: Sequence[Slip]) -> str:
    """Where the first of them are: 'line 2, column 1; line 3, column 5; ...'."""
    shown = "; ".join(position(text, slip.place) for slip in slips[:MAX_PLACES])
    return f"{shown}; ..." if len(slips) > MAX_PLACES else shown


def position(text: str, offset: int) -> str:
    """'line 3, column 12', both counted from 1."""
    line = text.count("\n", 0, offset) + 1
    return f"line {line}, column {offset - text.rfind(chr(10), 0, offset)}"


class _Reader:
    """Reads tokens as JSON would, and goes on after a slip as if it were right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._open: list[_Token] = []
        self._expects = _Expects.VALUE
        self._comma: _Token | None = None  # the one before this token
        self._last = _Token("mark", "", 0, 0)
        self._key = ""  # as it is written
        self._keys: list[str] = []  # of what is open

    def read(self) -> Iterator[Slip]:
        """Every slip."""
        for match in _TOKEN.finditer(self._text):
            token = _Token(str(match.lastgroup), match[0], match.start(), match.end())
            if token.kind == "space":
                yield from self._odd_spaces(token)
                continue
            if token.kind == "comment":
                message = "JSON has no comments; remove it, or put it into description"
                yield Slip(token.start, token.end, "", message, is_certain=True, kind="comment")
                continue
            if token.kind == "open_string":
                typographic = next((quote for quote in QUOTES if quote in token.text), None)
                why = f"; {typographic} is a typographic quote" if typographic else ""
                yield self._structural(
                    token.start, token.end, token.text, f"this text has no closing quote in its line{why}"
                )
                return
            if self._expects is _Expects.END:
                yield self._structural(token.start, len(self._text), "", "there is more after the end of the job")
                return
            if token.text in PLAIN_MARKS:
                plain = PLAIN_MARKS[token.text]
                yield self._slip(token, plain, f"a full-width {token.text!r}; JSON has {plain!r}", certain=True)
                token = replace(token, text=plain)
            yield from self._take(token)
            self._last = token
        if self._open:
            opened = self._open[-1]
            closing = "".join(_CLOSING[token.text] for token in reversed(self._open)).replace(")", "]")
            closing = ("null" if self._expects is _Expects.VALUE and self._comma is None else "") + closing
            where = position(self._text, opened.start).partition(",")[0]
            message = f"the {opened.text!r} of {where} is never closed"
            yield self._structural(self._last.end, self._last.end, closing, message)
            if self._comma is not None:
                yield self._slip(self._comma, "", "nothing follows this comma")
        elif self._expects is _Expects.VALUE:
            yield self._structural(0, 0, "{}", "the file is empty; a job is a JSON object, {...}")

    # -- what a token does ------------------------------------------------------------------------------------

    def _take(self, token: _Token) -> Iterator[Slip]:
        comma, self._comma = self._comma, None
        if token.text in ("}", "]", ")"):
            yield from self._close(token, comma)
        elif token.text in (",", ";"):
            yield from self._take_comma(token)
        elif token.text in (":", "=") and self._expects is not _Expects.VALUE:
            yield from self._take_colon(token)
        elif token.text in (":", "="):
            yield self._slip(token, "", f"a {token.text!r} too many")
        elif self._expects is _Expects.COLON:
            yield Slip(self._last.end, self._last.end, ":", f"a ':' is missing after the key {self._key}")
            self._expects = _Expects.VALUE
            yield from self._take_value(token)
        else:
            if self._expects is _Expects.COMMA:
                yield Slip(self._last.end, self._last.end, ",", "a comma is missing here")
                self._expects = _Expects.KEY if self._is_in_object else _Expects.VALUE
            if self._expects is _Expects.KEY:
                yield from self._take_key(token)
            else:
                yield from self._take_value(token)

    def _take_key(self, token: _Token) -> Iterator[Slip]:
        self._key, self._expects = token.text[:60], _Expects.COLON
        if token.kind == "string":
            yield from self._string(token)
        elif token.kind == "word":
            message = f'the key {token.text[:60]} needs double quotes: "{token.text[:60]}"'
            yield Slip(token.start, token.end, json.dumps(token.text), message, kind="bare key")
        else:
            yield self._structural(token.start, token.end, '"?"', f"{token.text!r} where a key belongs")

    def _take_value(self, token: _Token) -> Iterator[Slip]:
        self._expects = _Expects.COMMA if self._open else _Expects.END
        if token.text in _CLOSING:
            self._keys.append(self._own_key if self._is_in_object else "")
            self._open.append(token)
            self._expects = _Expects.KEY if token.text == "{" else _Expects.VALUE
            if token.text == "(":
                yield self._slip(token, "[", "a list stands in [ ], not in ( )", certain=True)
        elif token.kind == "string":
            yield from self._string(token)
        elif token.kind == "word":
            yield from self._word(token)
        else:
            yield self._unknown_value(token, f"{token.text!r} is no value")

    def _take_colon(self, token: _Token) -> Iterator[Slip]:
        if self._expects is _Expects.COLON:
            self._expects = _Expects.VALUE
            if token.text == "=":
                yield self._slip(token, ":", "between a key and its value stands ':', not '='")
        elif self._expects is _Expects.KEY:
            yield self._structural(token.start, token.start, '"?"', f"the key before this {token.text!r} is missing")
            self._expects = _Expects.VALUE
        else:
            yield self._slip(token, "", f"a {token.text!r} too many")

    def _take_comma(self, token: _Token) -> Iterator[Slip]:
        if self._expects is _Expects.COMMA:
            self._comma = token
            self._expects = _Expects.KEY if self._is_in_object else _Expects.VALUE
            if token.text == ";":
                yield self._slip(token, ",", "between two values stands ',', not ';'")
        elif self._expects is _Expects.COLON or (self._expects is _Expects.VALUE and self._is_in_object):
            yield from self._no_value(token)
            self._comma, self._expects = token, _Expects.KEY
        else:
            yield self._slip(token, "", "a comma too many; remove it")

    def _close(self, token: _Token, comma: _Token | None) -> Iterator[Slip]:
        if not self._open:
            yield self._slip(token, "", f"a {token.text!r} too many")
            return
        if comma is not None:
            what = "item of the list" if self._open[-1].text != "{" else "entry"
            yield self._slip(comma, "", f"a comma after the last {what} (a trailing comma); remove it", certain=True)
        elif self._expects is _Expects.COLON or (self._expects is _Expects.VALUE and self._is_in_object):
            yield from self._no_value(token)
        opened = self._open.pop()
        self._keys.pop()
        if (wanted := _CLOSING[opened.text]) != token.text:
            where = position(self._text, opened.start)
            message = f"{token.text!r} closes the {opened.text!r} of {where}"
            yield self._structural(token.start, token.end, wanted.replace(")", "]"), message)
        elif token.text == ")":
            yield self._slip(token, "]", "a list stands in [ ], not in ( )", certain=True)
        self._expects = _Expects.COMMA if self._open else _Expects.END

    def _no_value(self, token: _Token) -> Iterator[Slip]:
        instead = ": null" if self._expects is _Expects.COLON else " null"
        yield Slip(token.start, token.start, instead, f"the key {self._key} has no value", key=self._path or None)

    # -- values that are not as JSON has them -----------------------------------------------------------------

    def _string(self, token: _Token) -> Iterator[Slip]:
        quote, inside = token.text[0], token.text[1:-1]
        if quote == "'":
            plain = escaped(inside.replace("\\'", "'").replace('"', '\\"'))
            message = f'texts stand in double quotes: "{plain[:60]}"'
            if control := CONTROL.search(inside):
                what = f"{message}; {control_said(control[0])}"
                yield Slip(token.start, token.end, f'"{plain}"', what, at=token.start + 1 + control.start())
            else:
                yield Slip(token.start, token.end, f'"{plain}"', message, "\\" not in plain, "quotes")
        elif quote != '"':
            message = 'these are typographic quotes; texts stand in straight ones, "'
            yield self._slip(token, f'"{escaped(inside)}"', message)
        elif control := CONTROL.search(inside):
            at = token.start + 1 + control.start()
            yield Slip(token.start, token.end, f'"{escaped(inside)}"', control_said(control[0]), at=at)
        elif "\\" in _ESCAPE.sub("", inside):
            letter = _ESCAPE.sub("", inside).partition("\\")[2][:1]
            better = re.sub(r'\\(?!["\\/bfnrt]|u[0-9a-fA-F]{4})', r"\\\\", inside)
            message = f"'\\{letter}' means nothing in JSON; a backslash is written '\\\\'"
            yield self._slip(token, f'"{better}"', message)

    def _word(self, token: _Token) -> Iterator[Slip]:
        word = token.text
        if hidden := list(_ODD_BLANK.finditer(word)):
            word = _ODD_BLANK.sub("", word)
            if word in ("true", "false", "null") or _NUMBER.fullmatch(word):
                yield from (_odd_blank(token.start + one.start(), one[0]) for one in hidden)
                return
            token = replace(token, text=word)
        if word in ("true", "false", "null") or _NUMBER.fullmatch(word):
            return
        if word in _CONSTANTS:
            message = f"{word} is Python; in JSON it is {_CONSTANTS[word]}"
            yield Slip(token.start, token.end, _CONSTANTS[word], message, is_certain=True, kind=word)
        elif word.lower() in _CONSTANTS.values():
            yield self._slip(token, word.lower(), f"{word} is {word.lower()} in JSON")
        elif word.lstrip("+-").lower() in _NO_NUMBERS:
            message = f"{word} is not a number in JSON; give a number, or leave the parameter out"
            yield self._unknown_value(token, message)
        elif _PYTHON_NUMBER.fullmatch(word):
            number = word.lstrip("+")
            sign, digits = ("-", number[1:]) if number.startswith("-") else ("", number)
            digits = re.sub(
                r"^0+(?=\d)", "", re.sub(r"\.(?!\d)", ".0", f"0{digits}" if digits.startswith(".") else digits)
            )
            is_octal = re.match(r"[+-]?0\d", word) is not None
            yield self._slip(token, sign + digits, f"the number {word} is {sign}{digits} in JSON", certain=not is_octal)
        elif word[0].isdigit() or word[0] in "+-.":
            yield self._unknown_value(token, f"{word[:60]} is no number; give its value, such as 0.5")
        else:
            yield self._slip(token, json.dumps(word), f'the text {word[:60]} needs double quotes: "{word[:60]}"')

    def _odd_spaces(self, token: _Token) -> Iterator[Slip]:
        yield from (_odd_blank(token.start + odd.start(), odd[0]) for odd in _ODD_BLANK.finditer(token.text))

    # -- helpers ----------------------------------------------------------------------------------------------

    @property
    def _is_in_object(self) -> bool:
        return bool(self._open) and self._open[-1].text == "{"

    @property
    def _own_key(self) -> str:
        return self._key.strip(f"\"'{QUOTES}")

    @property
    def _path(self) -> str:
        """The key of the value that is read, from the top of the job on."""
        own = [self._own_key] if self._is_in_object else []
        return ".".join(key for key in (*self._keys, *own) if key)

    def _unknown_value(self, token: _Token, message: str) -> Slip:
        return replace(self._slip(token, "null", message), key=self._path or None)

    @staticmethod
    def _structural(start: int, end: int, instead: str, message: str) -> Slip:
        return Slip(start, end, instead, message, is_of_structure=True)

    def _slip(self, token: _Token, instead: str, message: str, *, certain: bool = False) -> Slip:
        return Slip(token.start, token.end, instead, message, certain)
