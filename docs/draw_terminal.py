"""Draw the terminals of README.md: `python docs/draw_terminal.py` trains the jobs of `accel-train init --example`.

What is in a picture is what the program printed to a terminal. It takes a minute or two; the times in the pictures are
those of the machine on which it was called.
"""

import codecs
import os
import pty
import re
import select
import shlex
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from fcntl import ioctl
from itertools import groupby
from pathlib import Path
from termios import TIOCSWINSZ

import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import MONOKAI
from rich.text import Text

PICTURES = Path(__file__).parent / "pictures"
COLUMNS, ROWS, PROMPT = 128, 200, "$ "
JOBS = ("small_cnn-digits.json", "cornet_z-digits.json")
# rich's own picture of a terminal asks a server for its letters.
FORMAT = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: {char_height}px;
 line-height: {line_height}px; font-variant-east-asian: full-width; }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


class Terminal:
    """A terminal in which commands are typed, with all that it has shown."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.screen = pyte.Screen(COLUMNS, ROWS)
        self._stream = pyte.Stream(self.screen)

    def type(self, command: str, until: Callable[[str], bool] = lambda text: False) -> None:
        """Type a command, and read what it shows, to its end or until the text on the screen is as wanted."""
        self._stream.feed(f"{PROMPT}{command}\r\n")
        controller, terminal = pty.openpty()
        ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
        here = Path(sys.executable).parent
        environment = {**os.environ, "PATH": f"{here}:{os.environ['PATH']}", "TERM": "xterm-256color"}
        words = shlex.split(command)
        process = subprocess.Popen(
            words, cwd=self.folder, env=environment, stdin=terminal, stdout=terminal, stderr=terminal
        )
        os.close(terminal)
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        try:
            while (piece := _read(controller, process)) is not None:
                self._stream.feed(decode(piece))
                if until("\n".join(self.screen.display)):
                    process.terminate()
                    return
        finally:
            process.wait()
            os.close(controller)

    def lines(self) -> list[Text]:
        """What is on the screen, with its colors, without the empty lines at the end."""
        last = max((row for row, text in enumerate(self.screen.display) if text.strip()), default=0)
        return [self._line(row) for row in range(last + 1)]

    def _line(self, row: int) -> Text:
        letters = (self.screen.buffer[row][column] for column in range(COLUMNS))
        text = Text()
        for style, same in groupby(letters, key=_style):
            text.append("".join(letter.data for letter in same), style)
        text.rstrip()
        return text


def _read(controller: int, process: "subprocess.Popen[bytes]") -> bytes | None:
    """What a terminal has shown since; None when its program has ended."""
    while not select.select([controller], [], [], 0.1)[0]:
        if process.poll() is not None:
            return None
    try:
        return os.read(controller, 65536) or None
    except OSError:  # so a terminal says that nobody has it open
        return None


def _style(letter: pyte.screens.Char) -> Style:
    return Style(color=_color(letter.fg), bgcolor=_color(letter.bg), bold=letter.bold, reverse=letter.reverse)


def _color(name: str) -> str | None:
    """rich's name of a color of pyte."""
    if name == "default":
        return None
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    return name.replace("brown", "yellow").replace("bright", "bright_")


def draw(lines: list[Text], title: str) -> str:
    """Lines as a picture of a terminal, in SVG."""
    width = max(max(line.cell_len for line in lines), 60)
    console = Console(record=True, width=width, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115, PTH123
    for line in [*lines, Text()]:  # the letters of a last line would be cut off below
        console.print(line, no_wrap=True, overflow="ignore", highlight=False)
    return console.export_svg(title=title, theme=MONOKAI, code_format=FORMAT, unique_id=title.replace(" ", "-"))


def is_in_epoch_4(shown: str) -> bool:
    """Whether a terminal shows the progress within the fourth epoch."""
    return re.search(r"epoch 4/5 .* left", shown) is not None


def main(folder: Path) -> None:
    """Train in a folder for temporary files, and draw."""
    os.environ["WANDB_MODE"] = "offline"  # no account of whoever draws
    with tempfile.TemporaryDirectory() as work:
        Terminal(Path(work)).type("accel-train init lab --example")
        lab = Path(work) / "lab"
        training = Terminal(lab)
        training.type(f"accel-train add {' '.join(JOBS)}")
        training.type("accel-train run-queue", until=is_in_epoch_4)
        (folder / "terminal.svg").write_text(draw(training.lines(), "accel-train run-queue"))
        Terminal(lab).type("accel-train run-queue")
        done = Terminal(lab)
        done.type("accel-train status")
        done.type("accel-train compare models")
        (folder / "compare.svg").write_text(draw(done.lines(), "accel-train compare"))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES)
