"""The page as HTML: one file, in which are its style, its script, the plotting library and all data.

Nothing of it is fetched: a Content-Security-Policy in it allows no request, and no script but these, by their digests.
Modules of the script are put together by leaving out what they import from each other: their names are unique.
"""

import base64
import dataclasses
import hashlib
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from string import Template

from accel_trainer.report.page.contents import PageContents

ASSETS = Path(__file__).parent / "assets"
MAIN = "main.mjs"
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([a-z_]+\.mjs)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=function|const|class)", re.MULTILINE)


def as_html(contents: PageContents, title: str, version: str) -> str:
    """The whole file. Names of others stand in it as text alone. version: this package's."""
    script, style = script_of(MAIN), _style()
    library = f"/*\n{_asset('uplot/LICENSE')}*/\n{_asset('uplot/uPlot.iife.min.js')}"
    allowed = " ".join(map(_digest, (library, script)))
    policy = (
        f"default-src 'none'; script-src {allowed}; style-src {_digest(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template(_asset("page.html")).substitute(
        policy=policy,
        title=html.escape(title),
        version=html.escape(version),
        style=style,
        data=_json(contents),
        library=library,
        script=script,
    )


def script_of(name: str) -> str:
    """A module and all that it imports, each after those that it needs, as one."""
    return "".join(dict.fromkeys(_modules(name)))


def _modules(name: str) -> Iterator[str]:
    source = _asset(name)
    for imported in _IMPORT.findall(source):
        yield from _modules(imported)
    yield _EXPORT.sub("", _IMPORT.sub("", source))


def _style() -> str:
    return _asset("uplot/uPlot.min.css") + _asset("page.css")


def _json(contents: PageContents) -> str:
    """JSON in which nothing can end the element that it stands in."""
    text = json.dumps(dataclasses.asdict(contents), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    """As a policy names the content of an element."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode('ascii')}'"
