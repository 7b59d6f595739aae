"""What MkDocs does to the pages of docs/ beside what it does itself: see mkdocs.yml, and `make site`.

README.md, CONTRIBUTING.md and CHANGELOG.md become pages too. What a page links to outside docs/ is no link there,
unless mkdocs.yml says where the repository is (repo_url). errors.md gets its tables.
"""

import re
from pathlib import Path
from typing import Any

from error_messages import HERE, tables
from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).parent.parent
# Pages that are files of the repository's root.
OF_ROOT = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the repository's root."""
    for name, page in OF_ROOT.items():
        content = _as_if_in_docs((REPOSITORY / name).read_text())
        files.append(File.generated(config, page, content=content))
    return files


def _as_if_in_docs(text: str) -> str:
    """A file of the root, with its links as they are from docs/."""

    def moved(link: re.Match[str]) -> str:
        words, target = _LINK.sub(moved, link[2]), link[3]  # a picture may be a link
        if target.startswith(("https:", "#")):
            return f"{link[1]}[{words}]({target})"
        inside = target.removeprefix("docs/")
        place = OF_ROOT.get(target, inside if inside != target else f"../{target}")
        return f"{link[1]}[{words}]({place})"

    return _LINK.sub(moved, text)


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """A page as the site has it."""
    if page.file.src_uri == "errors.md":
        markdown = markdown.replace(HERE, tables())

    def outside(link: re.Match[str]) -> str:
        if not link[3].startswith("../"):
            return link[0]
        place = link[3].removeprefix("../")
        name, hash_, part = place.partition("#")
        if name in OF_ROOT:
            return f"[{link[2]}]({OF_ROOT[name]}{hash_}{part})"
        if config.repo_url:
            return f"[{link[2]}]({config.repo_url.rstrip('/')}/blob/main/{place})"
        return f"{link[2]} (`{place}`)" if name not in link[2] else link[2]

    return _LINK.sub(outside, markdown)
