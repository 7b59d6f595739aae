"""Debian's headless Chromium by its DevTools protocol, over a pipe: what a page says, asks for and shows."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

NEEDED_VARIABLE = "ACCEL_TRAIN_NEED_BROWSER"
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)
TIMEOUT_S = 60
# What the page of `accel-train compare --html` says of itself when it is drawn.
OF_A_REPORT = "'ready' in (document.documentElement?.dataset ?? {})"


def find_chromium() -> str | None:
    """The program, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name)) is not None), None)


@contextmanager
def running_chromium() -> Iterator["Chromium"]:
    """A browser; without one the test is skipped, or fails where there has to be one."""
    program = find_chromium()
    if program is None:
        assert NEEDED_VARIABLE not in os.environ, "there is no Chromium"
        pytest.skip("needs Chromium")
    with Chromium(program) as started:
        yield started


def _pipe() -> tuple[int, int]:
    """One whose numbers are none of those that the browser wants."""
    ends = os.pipe()
    moved = fcntl.fcntl(ends[0], fcntl.F_DUPFD_CLOEXEC, 10), fcntl.fcntl(ends[1], fcntl.F_DUPFD_CLOEXEC, 10)
    for end in ends:
        os.close(end)
    return moved


class Chromium:
    """A browser with one page. said: errors and warnings of its console; asked: addresses of all requests but those of
    the file itself and of data in it."""

    def __init__(self, program: str) -> None:
        self.said, self.asked = list[str](), list[str]()
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        own_read, its_write = _pipe()
        its_read, own_write = _pipe()
        root = ["--no-sandbox"] if os.getuid() == 0 else []
        words = [program, *FLAGS, *root, f"--user-data-dir={self._profile.name}", "about:blank"]
        # A shell gives the pipes the numbers that the protocol wants.
        script = f'exec "$@" 3<&{its_read} 4>&{its_write} {its_read}<&- {its_write}>&-'
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *words],
            pass_fds=(its_read, its_write),
            env={**os.environ, "HOME": self._profile.name},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(its_read)
        os.close(its_write)
        self._read, self._write = os.fdopen(own_read, "rb"), os.fdopen(own_write, "wb")
        self._number, self._session, self._is_loaded = 0, None, False
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write.close()
        self._process.terminate()
        self._process.wait(TIMEOUT_S)
        self._read.close()
        self._profile.cleanup()

    def call(self, method: str, **parameters: Any) -> Any:
        """What the browser answers to a method of the protocol."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self._write.write(json.dumps(message).encode() + b"\0")
        self._write.flush()
        while (answer := self._next()).get("id") != self._number:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        content = bytearray()
        while (byte := self._read.read(1)) != b"\0":
            if not byte:
                raise RuntimeError("Chromium has ended")
            content += byte
        return json.loads(content)

    def _note(self, event: dict[str, Any]) -> None:
        match event:
            case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": details}}:
                self.said.append(details.get("exception", {}).get("description", details["text"]))
            case {"method": "Runtime.consoleAPICalled", "params": {"type": kind, "args": words}}:
                self.said.append(f"{kind}: {' '.join(str(word.get('value')) for word in words)}")
            case {"method": "Log.entryAdded", "params": {"entry": entry}}:
                self.said.append(entry["text"])
            case {"method": "Network.requestWillBeSent", "params": {"request": {"url": url}}}:
                if not url.startswith("data:"):
                    self.asked.append(url)
            case {"method": "Page.loadEventFired"}:
                self._is_loaded = True

    def open(self, path: Path, choices: str = "", ready: str = OF_A_REPORT) -> None:
        """Show a file, with what stands after `#`, and wait until all of it is there. ready: what is true then."""
        self.said.clear()
        self.asked.clear()
        self.call("Page.navigate", url="about:blank")
        self._is_loaded = False
        self.call("Page.navigate", url=path.as_uri() + (f"#{choices}" if choices else ""))
        self.wait_for(f"document.readyState === 'complete' && ({ready})")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression of JavaScript. Raises RuntimeError for what it throws."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if (details := result.get("exceptionDetails")) is not None:
            raise RuntimeError(details.get("exception", {}).get("description", details["text"]))
        return result["result"].get("value")

    def wait_for(self, expression: str) -> None:
        """Until an expression is true. Raises TimeoutError."""
        deadline = time.monotonic() + TIMEOUT_S
        while not self.evaluate(expression):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{expression} did not become true; {self.said}")
            time.sleep(0.02)

    def place_of(self, selector: str) -> dict[str, float]:
        """Where an element is in the window, scrolled to its middle: x, y, width and height."""
        place = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{place}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        found: dict[str, float] = self.evaluate(f"{place}.getBoundingClientRect().toJSON()")
        return found

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of the element, after which two frames are drawn."""
        box = self.place_of(selector)
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.move(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def move(self, x: float, y: float) -> None:
        """The pointer."""
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str) -> None:
        """A key that is no letter, by its name in JavaScript."""
        codes = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Escape": 27}
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            more = text if kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key], **more)
        self.settle()

    def type(self, text: str) -> None:
        """Letters into what has the focus."""
        self.call("Input.insertText", text=text)
        self.settle()

    def settle(self) -> None:
        """Until what was changed is drawn."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def look(self, width: int, height: int = 900, *, scheme: str = "light", is_phone: bool = False) -> None:
        """The size of the window, and whether its colors are light or dark."""
        scale = 2 if is_phone else 1
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=is_phone
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.settle()

    def picture(self, path: Path, *, whole: bool = False, kind: str = "png") -> Path:
        """What is seen, or the whole page, as a file."""
        more = {"captureBeyondViewport": True} if whole else {}
        quality = {"quality": 80} if kind in ("jpeg", "webp") else {}
        shot = self.call("Page.captureScreenshot", format=kind, **quality, **more)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def paper(self, path: Path) -> Path:
        """The page as it is printed, a PDF."""
        printed = self.call("Page.printToPDF", printBackground=True, paperWidth=8.27, paperHeight=11.69)
        path.write_bytes(base64.b64decode(printed["data"]))
        return path
