"""The notebooks as a book: the course in its order, then the wings; titles, parts, what each cell is."""
import json
import posixpath
import re
from configparser import ConfigParser
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

import nbformat

ROOT = Path(__file__).resolve().parent.parent.parent
# of the course, by first chapter
PARTS = {0: "Emotions and images", 3: "The network", 7: "Losses, measures, training", 11: "Experiments"}
# folders of nbs/, in this order, and what the table of contents calls them
WINGS = {"tools": "Tools", "datasets": "Data sets", "methods": "Other methods", "search": "Search",
         "widgets": "Widgets", "report": "Report", "bench": "Speed"}


def read_settings() -> dict[str, str]:
    "settings.ini, the one place where name, title and commands are written."
    config = ConfigParser(delimiters=["="])
    config.read(ROOT/"settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


@dataclass
class Chapter:
    path: Path
    folder: str = ""     # within nbs/

    @cached_property
    def notebook(self):
        return nbformat.read(self.path, 4)

    @property
    def wing(self) -> str:
        "The folder of nbs/ that it lies in; nothing for the course."
        return self.folder.split("/")[0]

    @property
    def number(self) -> str:
        return m[1] if not self.folder and (m := re.match(r"(\d+)_", self.path.name)) else ""

    @property
    def order(self) -> tuple:
        "The start page and others without a number, the course, the wings."
        if self.folder:
            known = list(WINGS)
            return (2, known.index(self.wing) if self.wing in known else len(known), self.folder, self.path.stem)
        if self.number:
            return (1, int(self.number), "", self.path.stem)
        return (0, self.path.stem != "index", "", self.path.stem)

    @property
    def file(self) -> str:
        return posixpath.join(self.folder, self.path.stem + ".html")

    @property
    def root(self) -> str:
        "From its page to the site's first folder."
        return "../"*self.file.count("/")

    @property
    def name(self) -> str:
        "What others call it: 'chapter 04' or 'notebook search/store'."
        if self.number:
            return f"chapter {self.number}"
        if self.folder:
            return f"notebook {self.folder}/{self.path.stem}"
        return "start" if self.path.stem == "index" else self.path.stem

    @property
    def url(self) -> str:
        return quote(self.file)

    @cached_property
    def head(self) -> tuple[str, str, str]:
        "Title and subtitle as Markdown, and what follows them in the first cell."
        lines = self.notebook.cells[0].source.strip().split("\n") if self.notebook.cells else [""]
        title = lines.pop(0).removeprefix("# ") if lines[0].startswith("# ") else self.path.stem
        while lines and not lines[0].strip():
            lines.pop(0)
        subtitle = []
        while lines and lines[0].startswith(">"):
            subtitle.append(lines.pop(0).lstrip("> "))
        return title, " ".join(subtitle), "\n".join(lines)

    @property
    def title(self) -> str:
        return re.sub(r"[`*]", "", self.head[0])

    @cached_property
    def module(self) -> str:
        return next((m[1] for c in self.notebook.cells if c.cell_type == "code"
                     and (m := re.search(r"^#\|\s*default_exp\s+(\S+)", c.source, re.M))), "")


def find_chapters(folder: Path) -> list[Chapter]:
    "The start page, the course by number, the wings."
    found = []
    for path in folder.rglob("*.ipynb"):
        inside = path.relative_to(folder)
        if not any(part.startswith((".", "_")) for part in inside.parts):
            found.append(Chapter(path, "" if len(inside.parts) == 1 else inside.parent.as_posix()))
    return sorted(found, key=lambda c: c.order)


def split_parts(chapters: list[Chapter]) -> list[tuple[str, list[Chapter]]]:
    "Chapters under the names of their parts; what has no number comes under no name."
    parts: dict[str, list[Chapter]] = {}
    for c in chapters:
        if c.number:
            name = next((PARTS[n] for n in sorted(PARTS, reverse=True) if n <= int(c.number)), "")
        elif c.folder:
            name = WINGS.get(c.wing, c.wing)
        elif c.path.stem == "index":
            continue
        else:
            name = ""
        parts.setdefault(name, []).append(c)
    return list(parts.items())


def sidebar_yml(chapters: list[Chapter]) -> str:
    "nbs/sidebar.yml: the same order for those who build with Quarto (nbdev_docs)."
    lines = ["# written by .ci/make_site.py from the notebooks that lie here", "website:", "  sidebar:",
             "    contents:", "      - index.ipynb"]
    for name, listed in split_parts(chapters):
        lines += [f"      - section: {json.dumps(name)}", "        contents:"]
        for c in listed:
            lines += [f"          - text: {json.dumps(f'{c.number} {c.title}'.strip())}",
                      f"            href: {posixpath.join(c.folder, c.path.name)}"]
    return "\n".join(lines) + "\n"


def split_directives(source: str) -> tuple[dict[str, str], str]:
    "nbdev's and Quarto's `#| name: value` lines of a cell, and the rest."
    lines = source.split("\n")
    marked = [line for line in lines if re.match(r"\s*#\|", line)]
    pairs = [re.match(r"\s*#\|\s*([\w-]+):?\s*(.*)", line) for line in marked]
    return {m[1]: m[2].strip() for m in pairs if m}, "\n".join(line for line in lines if line not in marked).strip("\n")


def exported_to(directives: dict[str, str], chapter: Chapter) -> str:
    "The module that a cell goes to, or nothing."
    return next((directives[d] or chapter.module for d in ("export", "exports") if d in directives), "")
