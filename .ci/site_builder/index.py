"""What the pages of a build can point at: chapters, exported names, live pages, files beside the notebooks."""
import re
import struct
from pathlib import Path

from math_core import LatexToMathML

from .book import ROOT, exported_to, find_chapters, read_settings, split_directives
from .entries import Entry, read_entries
from .live import titles


class Index:
    "Everything that a page of one build can ask for."

    def __init__(self,
                 notebooks: Path = ROOT/"nbs",  # where the chapters lie
                ):
        self.notebooks, self.settings = notebooks, read_settings()
        self.latex = LatexToMathML(fancy_error=False)
        self.chapters = find_chapters(notebooks)
        self.live = titles() if notebooks == ROOT/"nbs" else {}     # pages without a kernel, of this book only
        self.wanted: set[str] = set()               # files beside the notebooks that pages show
        self.modules = self._read_modules()
        self.by_name: dict[str, list[Entry]] = {}
        for entry in (e for entries in self.modules.values() for top in entries for e in (top, *top.methods)):
            self.by_name.setdefault(entry.name, []).append(entry)

    def _read_modules(self) -> dict[str, list[Entry]]:
        "The exported names by module; a module whose names are for the house only has no page."
        modules: dict[str, list[Entry]] = {}
        commands = {entry.split("=")[0] for entry in self.settings.get("console_scripts", "").split()}
        for chapter in self.chapters:
            for cell in chapter.notebook.cells:
                directives, source = split_directives(cell.source) if cell.cell_type == "code" else ({}, "")
                if module := exported_to(directives, chapter):
                    modules.setdefault(module, []).extend(read_entries(source, module, chapter, cell.id, commands))
        return {module: entries for module, entries in modules.items() if entries}

    def entry_of(self, text: str, module: str) -> str:
        """Address of the entry for a name in backticks, or nothing: other chapters' names are only followed where they
        cannot be ordinary words."""
        if text.removeprefix("live/") in self.live and "/" in text:
            return f"{text}.html"
        if "/" in text:      # a notebook of a wing
            return next((c.url for c in self.chapters if c.folder and f"{c.folder}/{c.path.stem}" == text), "")
        name = text.removesuffix("()").removeprefix(f"{self.settings['lib_name']}.")
        if name in self.modules and text != name:
            return f"api/{name}.html"
        known = self.by_name.get(name, [])
        own = [e for e in known if e.module == module]
        if not own and (len(known) != 1 or not re.search(r"[A-Z_]|\(\)$", text)):
            return ""
        entry = (own or known)[0]
        return f"api/{entry.module}.html#{entry.name}"

    def size_of(self, image: Path) -> str:
        "Width and height as attributes, so that the page does not jump while images load."
        head = image.read_bytes()[:24] if image.is_file() else b""
        if not head.startswith(b"\x89PNG"):
            return ""
        return ' width="{}" height="{}"'.format(*struct.unpack(">II", head[16:24]))
