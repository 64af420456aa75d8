"""What `make docs` needs beside mkdocs: pages outside of docs/, the order of pages, docstrings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
OUTSIDE = {"README.md": "readme.md", "CONTRIBUTING.md": "contributing.md"}
EXAMPLES = "examples/"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Takes the order of the pages from the tables of docs/index.md."""
    nav: list[dict[str, Any]] = [{"Overview": "index.md"}]
    for section in (ROOT / "docs" / "index.md").read_text().split("\n## ")[1:]:
        title = section.partition("\n")[0]
        links = re.findall(r"^\| \[([^\]]+)\]\(([^)]+)\)", section, re.M)
        nav.append({title: [{name: _inside(link)} for name, link in links]})
    config.nav = nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that lie outside of docs/ and the examples, which are shown as text."""
    for name, inside in OUTSIDE.items():
        text = (ROOT / name).read_text().replace("](docs/", "](")
        files.append(File.generated(config, inside, content=text))
    for path in sorted((ROOT / "docs" / EXAMPLES).glob("*.py")):
        text = f"# {path.name}\n\n```python\n{path.read_text()}```\n"
        files.append(File.generated(config, f"{EXAMPLES}{path.stem}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points links at the pages of the site; links to files that it lacks become their text."""

    def moved(match: re.Match[str]) -> str:
        text, link = match[1], match[2]
        path, _, anchor = link.partition("#")
        if path.startswith(EXAMPLES) and path.endswith(".py"):
            return f"[{text}]({path.removesuffix('.py')}.md)"
        name = path.rpartition("/")[2] if path.startswith("../") else path
        if name in OUTSIDE and (path.startswith("../") or page.file.src_uri in OUTSIDE.values()):
            up = "../" * page.file.src_uri.count("/")
            return f"[{text}]({up}{OUTSIDE[name]}{'#' + anchor if anchor else ''})"
        if page.file.src_uri in OUTSIDE.values() and (ROOT / path).exists():
            return text
        return match[0]

    return re.sub(r"(?<!!)\[([^\]]+)\]\(((?!https?:|#)[^)]+)\)", moved, markdown)


def _inside(link: str) -> str:
    return OUTSIDE.get(link.removeprefix("../"), link)


class Aligned(Extension):
    """Keeps the lines of docstrings whose columns are aligned, such as lists of arguments."""

    def on_instance(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            blocks = obj.docstring.value.split("\n\n")
            obj.docstring.value = "\n\n".join(map(_kept, blocks))


def _kept(block: str) -> str:
    aligned = re.search(r"^\s*[\w*, ]*\w {2,}\S|^    \S", block, re.M)
    return f"```text\n{block}\n```" if aligned and "```" not in block else block
