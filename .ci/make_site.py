"""Builds the book as a web site: chapters with navigation and search, API pages from docments, pictures, equations as MathML.
Needs no Quarto, runs no notebook (their outputs are committed), and the pages ask nothing of the internet.

    python .ci/make_site.py            build into _docs
    python .ci/make_site.py --check    build, then follow every link and anchor; exit status 1 with a list if something is wrong

The course is the numbered notebooks of nbs/, in the order of their numbers; each folder below is a wing. Titles are first headings."""
import argparse
import ast
import html
import importlib
import io
import json
import posixpath
import re
import shutil
import struct
import sys
import tokenize
from base64 import b64decode
from configparser import ConfigParser
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import nbformat
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from math_core import LatexError, LatexToMathML
from nbconvert.filters import strip_ansi
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

ROOT = Path(__file__).resolve().parent.parent
SITE = Path(__file__).resolve().parent/"site"                 # templates, style, script
# of the course, by first chapter
PARTS = {0: "Emotions and images", 3: "The network", 7: "Losses, measures, training", 11: "Experiments"}
# folders of nbs/, in this order, and what the table of contents calls them
WINGS = {"tools": "Tools", "datasets": "Data sets", "methods": "Other methods", "search": "Search", "widgets": "Widgets",
         "report": "Report", "bench": "Speed"}
# what browsers show for a lone letter in an equation
ITALIC = "".join(map(chr, [*range(0x1d434, 0x1d468), *range(0x1d6e2, 0x1d71c), 0x210e]))


def read_settings() -> dict[str, str]:
    "settings.ini, the one place where name, title and commands are written."
    config = ConfigParser(delimiters=["="])
    config.read(ROOT/"settings.ini", encoding="utf-8")
    return dict(config["DEFAULT"])


# Text: Markdown, equations, code

def plain(fragment: str) -> str:
    "The text of an HTML fragment, without the equations that stand on lines of their own."
    fragment = re.sub(r'<span class="equation">.*?</span>', " ", fragment, flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", "", fragment))).strip()


def first_sentences(text: str, limit: int = 220) -> str:
    "As many whole sentences as fit, at least the beginning of the first."
    if len(text) <= limit:
        return text
    cut = text[:limit]
    end = max(cut.rfind(mark) for mark in (". ", "? ", "! ", ": "))
    return cut[:end + 1] if end > 40 else cut[:cut.rfind(" ")] + " ..."


def ticked(text: str) -> Markup:
    "A comment of one line: text in backticks is code."
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False)))


def keep_short(table: str) -> str:
    "Cells of a table with a word or two do not break."
    return re.sub(r"<(td|th)>([^<]{1,22})</\1>", r'<\1 class="short">\2</\1>', table)


def slug(text: str) -> str:
    "The anchor of a heading, as Pandoc (and so Quarto) makes it."
    kept = "".join(c.lower() for c in text if c.isalnum() or c.isspace() or c in "_-.")
    return re.sub(r"^[^a-z]+", "", "-".join(kept.split())) or "section"


def colour(code: str, language: str = "python") -> str:
    "Code as HTML with one class for each kind of word."
    try:
        lexer = get_lexer_by_name(language, stripnl=False)
    except ClassNotFound:
        return html.escape(code)
    return highlight(code, lexer, HtmlFormatter(nowrap=True)).rstrip("\n")


class Renderer(IPythonRenderer):
    """Markdown of one page to HTML: equations become MathML, links to notebooks become links to pages, exported names
    become links to their entry."""

    def __init__(self,
                 site: "Site",
                 where: str,         # what a complaint names
                 module: str = "",   # names of this module come first
                 root: str = "",     # from the page to the site's first folder
                 folder: str = "",   # of the notebook that links are written in, within nbs/
                ):
        super().__init__(escape=False)
        self.site, self.where, self.module, self.root, self.folder = site, where, module, root, folder
        self.headings: list[tuple[int, str, str]] = []   # of the table of contents: level, anchor, HTML
        self.taken: set[str] = set()                     # anchors
        self.deeper, self.listed = 0, True

    def convert(self, text: str) -> str:
        return MarkdownWithMath(renderer=self)(text)

    def convert_output(self, text: str) -> str:
        "Markdown that a cell printed: its headings go below the page's and not into the table of contents."
        before, (self.deeper, self.listed) = (self.deeper,
                                              self.listed), (max([3, *(level for level, _,
                                                                       _ in self.headings[-1:])]), False)
        try:
            return self.convert(text)
        finally:
            self.deeper, self.listed = before

    def convert_html(self, fragment: str) -> str:
        "A table as pandas prints it; Jupyter shows `$...$` in it as an equation, so do we."
        fragment = re.sub(r"<(style|script)\b.*?</\1>", "", fragment, flags=re.S | re.I)
        pieces = re.split(r"(<[^>]*>)", re.sub(r"<table[^>]*>", "<table>", fragment))
        return "".join(p if p.startswith("<") else re.sub(r"\$([^$\n]*[\\_^][^$\n]*)\$",
                                                          lambda m: self.equation(html.unescape(m[1]), False), p)
                       for p in pieces)

    def equation(self, tex: str, block: bool) -> str:
        try:
            mathml = self.site.latex.convert_with_local_state(tex.strip(), displaystyle=block)
        except LatexError as e:
            raise ValueError(f"{self.where}: this equation cannot be read: {tex.strip()!r} ({e})") from None
        return f'<span class="equation">{mathml}</span>' if block else mathml

    def block_math(self, body: str) -> str:
        return self.equation(body, True)
    def inline_math(self, body: str) -> str:
        return self.equation(body, False)
    def latex_environment(self, name: str, body: str) -> str:
        return self.equation(rf"\begin{{{name}}}{body}\end{{{name}}}", True)

    def heading(self, text: str, level: int, **attrs) -> str:
        base = anchor = slug(plain(text))
        level, n = min(level + self.deeper, 6), 1
        while anchor in self.taken:
            anchor, n = f"{base}-{n}", n + 1
        self.taken.add(anchor)
        if self.listed:
            self.headings.append((level, anchor, re.sub(r"</?a\b[^>]*>", "", text)))
        return f'<h{level} id="{anchor}">{text} <a class="anchor" href="#{anchor}" aria-label="Link to this section">#</a></h{level}>\n'

    def link(self, text: str, url: str, title: str | None = None) -> str:
        target, _, fragment = url.partition("#")
        if not urlsplit(url).scheme and not url.startswith("//"):
            if target.endswith(".ipynb"):
                target = self.address(target.removesuffix(".ipynb") + ".html")
            elif target:
                self.site.wanted.add(self.within(target))      # a file beside the notebooks travels along
                target = self.address(target)
            url = target + ("#" + slug(unquote(fragment).replace("-", " ")) if fragment else "")
        elif text == html.escape(url) and not re.search(r"\.[a-z]{2,}$", (urlsplit(url).hostname or "")):
            return f"<code>{text}</code>"    # http://host:19530 is an example
        return f'<a href="{html.escape(url)}">{text}</a>'

    def within(self, url: str) -> str:
        "Where a relative address leads, seen from nbs/."
        return posixpath.normpath(posixpath.join(self.folder, url))

    def address(self, url: str) -> str:
        "The same, seen from the page."
        return self.root + self.within(url)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        if urlsplit(url).scheme:
            size = ""
        else:
            url = self.within(url)
            self.site.wanted.add(url)
            url, size = self.root + url, self.site.size_of(self.site.notebooks/unquote(url))
        return f'<img src="{html.escape(url)}" alt="{html.escape(plain(text))}"{size}>'

    def codespan(self, text: str) -> str:
        shown, target = f"<code>{html.escape(html.unescape(text))}</code>", self.site.entry_of(html.unescape(text),
                self.module)
        return f'<a class="name" href="{self.root}{target}">{shown}</a>' if target else shown

    def block_code(self, code: str, info: str | None = None) -> str:
        language = (info or "text").split()[0]
        return f'<pre class="code"><code>{colour(code.rstrip(), language)}</code></pre>\n'

    def table(self, text: str) -> str:
        return f'<div class="table"><table>{keep_short(text)}</table></div>\n'


# API entries, read from the exported cells themselves: names, types and defaults as they are written there

@dataclass
class Parameter:
    name: str
    type: str
    default: str | None
    note: str            # the comment beside it
    bare: bool = False   # the first one after a bare `*`


@dataclass
class Entry:
    "One exported name, or a method of an exported class."
    name: str
    kind: str                      # 'class', 'function', 'method', 'property', 'command' or 'value'
    text: str                      # the docstring, the value as it is written, or what a command's --help prints
    module: str
    chapter: "Chapter"
    cell: str                      # anchor of the defining cell in its chapter
    bases: str = ""
    fields: bool = False           # the parameters are the fields of a data class or named tuple
    parameters: list[Parameter] = field(default_factory=list)
    returns: Parameter | None = None
    methods: list["Entry"] = field(default_factory=list)

    @property
    def noted(self) -> bool:
        return any(p.note for p in (*self.parameters, *([self.returns] if self.returns else [])))

    @property
    def call(self) -> str:
        "The signature; with types where no table tells them."
        if self.kind in ("property", "value", "command") or (self.kind == "class" and not self.parameters):
            return ""
        shown = []
        for p in self.parameters:
            typed = p.type and not self.noted
            shown += ["*"]*p.bare + [p.name + f": {p.type}"*bool(typed) + (f"{' = ' if typed else '='}{p.default}"
                                                                           if p.default is not None else "")]
        return f"{self.name.rpartition('.')[2]}({', '.join(shown)})" + (f" -> {self.returns.type}" if self.returns
                                                                        and not self.noted else "")


def notes_of(source: str) -> dict[int, tuple[str, bool]]:
    "Comments by line: their text, and whether they stand alone on it."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: (t.string.lstrip("# ").strip(), not t.line[:t.start[1]].strip()) for t in tokens
            if t.type == tokenize.COMMENT}


def note_for(first: int, last: int, notes: dict) -> str:
    "A docment: the comment at the end of the line, or the lines of comment right above."
    if last in notes and not notes[last][1]:
        return notes[last][0]
    above = []
    while first - 1 in notes and notes[first - 1][1]:
        first -= 1
        above.append(notes[first][0])
    return " ".join(reversed(above))


def read_arguments(function: ast.FunctionDef, notes: dict, method: bool = False) -> tuple[list[Parameter],
        Parameter | None]:
    "Parameters and what is returned, each with its docment."
    a = function.args
    positional = a.posonlyargs + a.args
    listed = list(zip(positional, [""]*len(positional), [None]*(len(positional) - len(a.defaults)) + a.defaults))
    if method and not any(getattr(d, "id", "") == "staticmethod" for d in function.decorator_list):
        listed = listed[1:]
    if a.vararg:
        listed.append((a.vararg, "*", None))
    keyword = list(zip(a.kwonlyargs, [""]*len(a.kwonlyargs), a.kw_defaults))
    bare = keyword[0][0].arg if keyword and not a.vararg else None
    listed += keyword + ([(a.kwarg, "**", None)] if a.kwarg else [])
    body, last = function.body[0].lineno, function.returns.end_lineno if function.returns else 0
    owner = {(d or x).end_lineno: x.arg for x, _, d in listed}  # a comment belongs to the last parameter of its line
    rows = []
    for x, stars, default in listed:
        end = (default or x).end_lineno
        note = note_for(x.lineno, end, notes) if owner[end] == x.arg and end != last and end < body else ""
        rows.append(Parameter(stars + x.arg, ast.unparse(x.annotation) if x.annotation else "", ast.unparse(default)
                              if default is not None else None, note, x.arg == bare))
    returned = Parameter("returns", ast.unparse(function.returns), None, note_for(last, last, notes) if last < body
                         else "") if function.returns else None
    return rows, returned if returned and (returned.note or returned.type != "None") else None


def read_class(node: ast.ClassDef, notes: dict, entry: Entry) -> None:
    "Parameters (or fields) and documented methods of a class."
    inner = [n for n in node.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and not getattr(n.target, "id", "_").startswith("_")]
    for n in inner:
        if n.name == "__init__":
            entry.parameters, _ = read_arguments(n, notes, True)
    if fields and not entry.parameters:
        entry.fields = True
        entry.parameters = [Parameter(n.target.id, ast.unparse(n.annotation), ast.unparse(n.value) if n.value
                                      else None, note_for(n.lineno, n.end_lineno, notes)) for n in fields]
    for n in inner:
        said = ast.get_docstring(n)
        if not said or (n.name.startswith("_") and n.name != "__call__"):
            continue
        kind = "property" if any("property" in ast.unparse(d) for d in n.decorator_list) else "method"
        rows, returned = read_arguments(n, notes, True)
        entry.methods.append(Entry(f"{node.name}.{n.name}", kind, said, entry.module, entry.chapter, entry.cell,
                                   parameters=rows, returns=returned))


def read_entries(source: str, module: str, chapter: "Chapter", cell: str, commands: set[str]) -> list[Entry]:
    "The exported names that one cell defines."
    tree, notes, found = ast.parse(source), notes_of(source), []
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            entry = Entry(node.name, "function", ast.get_docstring(node) or "", module, chapter, cell)
            if node.name in commands:
                entry.kind, entry.text = "command", command_help(module, node.name)
            elif isinstance(node, ast.ClassDef):
                entry.kind, entry.bases = "class", ", ".join(map(ast.unparse, node.bases))
                read_class(node, notes, entry)
            else:
                entry.parameters, entry.returns = read_arguments(node, notes)
            found.append(entry)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)
                     and isinstance(n.ctx, ast.Store) and not n.id.startswith("_")]
            found += [Entry(name, "value", ast.get_source_segment(source, node), module, chapter, cell)
                      for name in names]
    return found


def command_help(module: str, name: str) -> str:
    "What `name --help` prints."
    import click
    command = getattr(importlib.import_module(f"{read_settings()['lib_name']}.{module}"), name)
    return command.get_help(click.Context(command, info_name=name, max_content_width=88, terminal_width=88))


# Chapters

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
        lines += [f"      - section: {json.dumps(name)}", "        contents:"] + [f"          - text: "
                f"{json.dumps(f'{c.number} {c.title}'.strip())}\n            href: {posixpath.join(c.folder, c.path.name)}" for c in listed]
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


# The site

class Site:
    "Everything that goes into one build."

    def __init__(self,
                 out: Path,                     # folder to write; emptied first
                 notebooks: Path = ROOT/"nbs",  # where the chapters lie
                ):
        self.out, self.notebooks, self.settings = out, notebooks, read_settings()
        self.latex = LatexToMathML(fancy_error=False)
        self.chapters = find_chapters(notebooks)
        self.wanted: set[str] = set()               # files beside the notebooks that pages show
        self.search: list[dict] = []
        self.characters: set[str] = set(ITALIC)     # of all equations, for the font
        self.env = Environment(loader=FileSystemLoader(SITE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
        self.env.globals.update(site=self, settings=self.settings, colour=lambda code: Markup(colour(code)),
                                docstring=self.docstring, ticked=ticked)
        self.modules: dict[str, list[Entry]] = {}
        commands = {entry.split("=")[0] for entry in self.settings.get("console_scripts", "").split()}
        for chapter in self.chapters:
            for cell in chapter.notebook.cells:
                directives, source = split_directives(cell.source) if cell.cell_type == "code" else ({}, "")
                if module := exported_to(directives, chapter):
                    self.modules.setdefault(module, []).extend(read_entries(source, module, chapter, cell.id, commands))
        self.by_name: dict[str, list[Entry]] = {}
        for entry in (e for entries in self.modules.values() for top in entries for e in (top, *top.methods)):
            self.by_name.setdefault(entry.name, []).append(entry)

    # what pages ask for

    def entry_of(self, text: str, module: str) -> str:
        """Address of the entry for a name in backticks, or nothing: other chapters' names are only followed where they
        cannot be ordinary words."""
        name = text.removesuffix("()").removeprefix(f"{self.settings['lib_name']}.")
        if name in self.modules and text != name:
            return f"api/{name}.html"
        known = self.by_name.get(name, [])
        own = [e for e in known if e.module == module]
        if not own and (len(known) != 1 or not re.search(r"[A-Z_]|\(\)$", text)):
            return ""
        entry = (own or known)[0]
        return f"api/{entry.module}.html#{entry.name}"

    def size_of(self, picture: Path) -> str:
        "Width and height as attributes, so that the page does not jump while pictures load."
        head = picture.read_bytes()[:24] if picture.is_file() else b""
        return ' width="{}" height="{}"'.format(*struct.unpack(">II",
                                                               head[16:24])) if head.startswith(b"\x89PNG") else ""

    def docstring(self, entry: Entry) -> Markup:
        "A docstring is Markdown, as nbdev reads it."
        render = Renderer(self, f"{entry.module}.{entry.name}", entry.module, "../", entry.chapter.folder)
        render.deeper, render.listed = 3, False
        return Markup(render.convert(entry.text))

    def write(self, address: str, template: str, **values) -> None:
        "One page."
        text = self.env.get_template(template).render(root="../"*address.count("/"), address=address,
                                                      parts=split_parts(self.chapters), **values)
        for equation in re.findall(r"<math.*?</math>", text, re.S):
            self.characters.update(plain(equation))   # the font needs them
        path = self.out/address
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def api(self) -> None:
        "One page a module, and their list."
        listed = [(module, entries[0].chapter, entries) for module, entries in self.modules.items() if entries]
        self.write("api/index.html", "modules.html", title="API", description="Every exported function and class, "
                   "module by module", listed=listed)
        for module, chapter, entries in listed:
            lead = Renderer(self, chapter.path.name, module,
                            "../", chapter.folder).convert(chapter.head[1]) if chapter.module == module else ""
            title = f"{self.settings['lib_name']}.{module}"
            self.write(f"api/{module}.html", "api.html", title=title, description=f"The functions and classes of "
                       f"{title}", module=module, chapter=chapter, lead=Markup(lead), entries=entries)
            for e in (e for top in entries for e in (top, *top.methods)):
                text = " ".join([e.text if e.kind != "value" else "",
                                 *(f"{p.name}: {p.note}" for p in e.parameters if p.note)])
                self.search.append(dict(url=f"api/{module}.html#{e.name}", title=e.name,
                                        place=f"API, {e.kind} of {module}",
                                        text=re.sub(r"[\s`]+", " ", text).strip(), names=""))

    def font(self) -> None:
        """The glyphs that the equations use, cut out of STIX Two Math (SIL Open Font License) with its table for laying
        out equations."""
        from importlib.util import find_spec
        from fontTools import subset
        options = subset.Options(flavor="woff", layout_features=["*"], hinting=False, notdef_outline=True,
                                 drop_tables=["DSIG"])
        font = subset.load_font(Path(find_spec("ziamath").origin).parent/"fonts"/"STIXTwoMath-Regular.ttf", options,
                                lazy=False)
        cutter = subset.Subsetter(options)
        cutter.populate(text="".join(self.characters))
        cutter.subset(font)
        subset.save_font(font, self.out/"equations.woff", options)

    def build(self) -> "Site":
        if self.out.exists():
            if any(self.out.iterdir()) and not (self.out/"site.css").exists():
                raise ValueError(f"{self.out} is not empty and holds no site; give another folder or empty it.")
            shutil.rmtree(self.out)
        self.out.mkdir(parents=True)
        for name in ("site.css", "site.js"):
            shutil.copy(SITE/name, self.out/name)
        for chapter in self.chapters:
            ChapterPage(self, chapter).write()
        self.api()
        for name in sorted(self.wanted):
            source, target = (self.notebooks/unquote(name)).resolve(), (self.out/unquote(name)).resolve()
            # anything else is left for the checker to report
            if source.is_file() and source.is_relative_to(self.notebooks.resolve()) and target.is_relative_to(self.out.resolve()):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
        self.font()
        (self.out/"search.js").write_text("window.SEARCH = " + json.dumps(self.search, ensure_ascii=False,
                                                                          separators=(",", ":")) + ";\n",
                                          encoding="utf-8")
        return self


class ChapterPage:
    "One notebook on its way to a page: hidden cells left out, exported cells marked and linked to their API entries."

    def __init__(self, site: Site, chapter: Chapter):
        self.site, self.chapter = site, chapter
        self.render = Renderer(site, posixpath.join(chapter.folder, chapter.path.name), chapter.module, chapter.root,
                               chapter.folder)
        self.title, self.subtitle = (re.sub(r"</?p>", "", self.render.convert(text)).strip()
                                     for text in chapter.head[:2])
        self.blocks: list[str] = []
        self.sections = [dict(anchor="", title="", text=plain(self.subtitle), names=[])]     # for the search
        self.said, self.pictures = "", 0  # the last paragraph; pictures so far
        texts = [chapter.head[2], *(c.source for c in chapter.notebook.cells[1:] if c.cell_type == "markdown")]
        if any(re.search(r"^# ", re.sub(r"^(```|~~~).*?^\1", "", t, flags=re.M | re.S), re.M) for t in texts):
            self.render.deeper = 1    # a page has one first heading
        for n, cell in enumerate(chapter.notebook.cells):
            if cell.cell_type == "markdown":
                self.add_text(cell, chapter.head[2] if n == 0 else cell.source)
            elif cell.cell_type == "code":
                self.add_code(cell)

    def add_text(self, cell, text: str) -> None:
        "A Markdown cell."
        for name, files in cell.get("attachments", {}).items():
            kind, data = next(iter(files.items()))
            text = re.sub(r"!\[([^\]]*)\]\(attachment:" + re.escape(name) + r"\)",
                          lambda m: self.picture(kind, data, m[1]), text)
        fragment = self.render.convert(text)
        self.blocks.append(f'<div id="{html.escape(cell.id)}" class="prose">{fragment}</div>')
        for piece in re.split(r"(?=<h[1-6] id=)", fragment):
            if m := re.match(r'<h[1-6] id="([^"]+)">(.*?) <a class="anchor".*?</h[1-6]>', piece, re.S):
                self.sections.append(dict(anchor=m[1], title=plain(m[2]), text="", names=[]))
                piece = piece[m.end():]
            self.sections[-1]["text"] += " " + plain(piece)
            paragraphs = [text for p in re.findall(r"<p>(.*?)</p>", piece, re.S) if len(text := plain(p)) > 3]
            if paragraphs:
                self.said = first_sentences(paragraphs[-1])

    def add_code(self, cell) -> None:
        "A code cell with its stored outputs."
        directives, source = split_directives(cell.source)
        if directives.keys() & {"hide", "default_exp"} or directives.get("include") == "false":
            return
        module = exported_to(directives, self.chapter)
        names = [e.name for e in self.site.modules.get(module, []) if e.chapter is self.chapter and e.cell == cell.id]
        self.sections[-1]["names"] += names
        links = ", ".join(f'<a href="{self.chapter.root}api/{module}.html#{name}">{name}</a>' for name in names)
        shown = [f'<p class="badge">{links}</p>'] if names else []
        if source and directives.get("echo") != "false":
            shown.append(f'<pre class="code"><code>{colour(source)}</code></pre>')
        if directives.get("output") != "false":
            shown += [self.output(o, directives) for o in cell.outputs]
        if any(shown):
            self.blocks.append(f'<div id="{html.escape(cell.id)}" '
                               f'class="cell{" exported" if names else ""}">{"".join(shown)}</div>')

    def output(self, out, directives: dict[str, str]) -> str:
        "One stored output, in the richest form that a page can show."
        if out.output_type == "stream":
            return f'<pre class="out{" warn" if out.name == "stderr" else ""}">{html.escape(strip_ansi(out.text).rstrip())}</pre>'
        if out.output_type == "error":
            return f'<pre class="out warn">{html.escape(strip_ansi(chr(10).join(out.traceback)))}</pre>'
        data = out.get("data", {})
        for kind in ("image/png", "image/jpeg", "image/svg+xml"):
            if kind in data:
                alt = out.get("metadata", {}).get(kind, {}).get("alt") or directives.get("fig-alt", "").strip("\"'")
                return f"<figure>{self.picture(kind, data[kind], alt)}</figure>"
        if "application/vnd.jupyter.widget-view+json" in data:
            return '<p class="aside">Here the notebook shows a widget; it needs a running kernel.</p>'
        if "text/html" in data:
            return f'<div class="table data">{keep_short(self.render.convert_html(data["text/html"]))}</div>'
        for kind in ("text/markdown", "text/latex"):
            if kind in data:
                return f'<div class="printed">{self.render.convert_output(data[kind])}</div>'
        return f'<pre class="out">{html.escape(data["text/plain"])}</pre>' if data.get("text/plain") else ""

    def picture(self, kind: str, data: str, alt: str) -> str:
        "A picture as a file; without a description it gets the section's title and the sentences before it."
        self.pictures += 1
        ending = dict(png="png", jpeg="jpg").get(kind[6:], "svg")
        file = "_".join([*filter(None, self.chapter.folder.split("/")), self.chapter.path.stem,
                         f"{self.pictures}.{ending}"])
        path = self.site.out/"figures"/file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if kind.endswith("xml") else b64decode(data))
        where = self.site.settings["title"] if self.chapter.name == "start" else self.chapter.name.capitalize()
        alt = alt or f"{where}, picture {self.pictures}, {self.sections[-1]['title'] or plain(self.title)}: {self.said}"
        return (f'<img src="{self.chapter.root}figures/{quote(path.name)}" alt="{html.escape(alt)}"'
                f'{self.site.size_of(path)} loading="lazy">')

    def write(self) -> None:
        chapter, chapters = self.chapter, self.site.chapters
        at = chapters.index(chapter)
        self.site.write(chapter.file, "chapter.html", chapter=chapter, title=chapter.title,
                        shown_title=Markup(self.title), shown_subtitle=Markup(self.subtitle),
                        description=plain(self.subtitle),
                        body=Markup("\n".join(self.blocks)), toc=[(level, anchor, Markup(text)) for level, anchor,
                                                                  text in self.render.headings if level in (2, 3)],
                        module=chapter.module if chapter.module in self.site.modules else "", before=chapters[at - 1]
                        if at else None, after=chapters[at + 1] if at + 1 < len(chapters) else None)
        name = f"{chapter.number or WINGS.get(chapter.wing, chapter.wing)} {chapter.title}".strip()
        for s in self.sections:
            place = name if s["title"] else chapter.name
            self.site.search.append(dict(url=chapter.url + (f"#{s['anchor']}" if s["anchor"] else ""),
                                         title=s["title"] or chapter.title, place=place, text=s["text"].strip(),
                                         names=" ".join(s["names"])))


# The checker

class Page(HTMLParser):
    "What the checker needs to know of one page."

    def __init__(self, text: str):
        super().__init__()
        self.ids: list[str] = []
        self.links: list[tuple[str, str, str]] = []   # element, attribute, address
        self.no_alt: list[str] = []
        self.title, self.h1, self.text, self.equations, self.open = "", 0, [], 0, []
        self.feed(re.sub(r"<pre\b.*?</pre>", "", text, flags=re.S))    # code and what it prints hold no links

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        if "srcdoc" in a:  # a page on show within the page: it must ask for nothing; its links are those of the exhibit
            inner = Page(a.pop("srcdoc"))
            self.links, self.no_alt = self.links + [link for link in inner.links
                                                    if link[0] != "a"], self.no_alt + inner.no_alt
            if a.get("src") == "about:blank":
                del a["src"]
        if "id" in a:
            self.ids.append(a["id"])
        self.links += [(tag, k, a[k] or "") for k in ("href", "src", "srcset", "data", "poster", "action", "style")
                       if k in a]
        if tag == "img" and not (a.get("alt") or "").strip():
            self.no_alt.append(a.get("src", "?"))
        self.h1 += tag == "h1"
        self.equations += tag == "math"
        if tag in ("title", "code", "script", "style", "math", "annotation"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            self.open.remove(tag)

    def handle_data(self, data):
        if "title" in self.open:
            self.title += data
        elif not self.open:
            self.text.append(data)


def check(out: Path, chapters: list[Chapter], modules: dict[str, list[Entry]]) -> list[str]:
    "Everything that is wrong with a built site, one sentence each."
    pages = {p.relative_to(out).as_posix(): Page(p.read_text(encoding="utf-8")) for p in sorted(out.rglob("*.html"))}
    wrong = [f"{name} was not built" for name in ["index.html", "api/index.html", *(c.file for c in chapters),
                                                  *(f"api/{m}.html" for m in modules)] if name not in pages]

    def follow(name: str, address: str) -> str:
        "What is wrong with an address inside the site."
        parts = urlsplit(address)
        target = ((out/name).parent/unquote(parts.path)).resolve() if parts.path else out/name
        if not target.is_file() or not target.is_relative_to(out.resolve()):
            return "does not exist"
        inner = target.relative_to(out.resolve()).as_posix() if parts.path else name
        return f"has no place called {parts.fragment!r}" if parts.fragment and inner in pages and unquote(parts.fragment) not in pages[inner].ids else ""

    for name, page in pages.items():
        if not page.title.strip():
            wrong.append(f"{name} has no title")
        if page.h1 != 1:
            wrong.append(f"{name} has {page.h1} first-level headings")
        wrong += [f"{name}: two places are called {i!r}"
                  for i in sorted({i for i in page.ids if page.ids.count(i) > 1})]
        wrong += [f"{name}: the picture {src} has no description" for src in page.no_alt]
        text = " ".join(page.text)
        wrong += [f"{name}: an equation was left as text: {m!r}"
                  for m in re.findall(r"\$\$.{0,40}|\\(?:frac|sum|mathrm|mathbf|mathcal|lambda|exp|log)\b.{0,40}",
                                      text)]
        for tag, attribute, address in page.links:
            if attribute == "style":
                if "url(" in address:
                    wrong.append(f"{name}: a style asks for a file: {address!r}")
                continue
            parts = urlsplit(address)
            if parts.scheme in ("http", "https") and tag == "a":
                if not re.fullmatch(r"[\w.-]+\.[a-z]{2,}(:\d+)?", parts.netloc) or re.search(r"[\s<>\"]", address):
                    wrong.append(f"{name}: {address!r} is no address")
            elif parts.scheme == "mailto" and tag == "a" or address.startswith("data:image/") and tag in ("img",
                    "link"):
                pass
            elif parts.scheme or parts.netloc:
                wrong.append(f"{name}: <{tag}> asks for {address!r}, which is not part of the site")
            elif address.endswith(".ipynb"):
                wrong.append(f"{name}: {address} leads to a notebook, not to its page")
            elif problem := follow(name, address):
                wrong.append(f"{name}: {address!r} {problem}")
    for sheet in sorted(out.rglob("*.css")):
        for address in re.findall(r"url\(\s*['\"]?([^'\")]+)|@import\s+['\"]([^'\"]+)",
                                  sheet.read_text(encoding="utf-8")):
            address = "".join(address)
            if not address.startswith("data:") and (urlsplit(address).netloc or not (sheet.parent/address).is_file()):
                wrong.append(f"{sheet.name}: {address!r} is not part of the site")
    for script in sorted(out.rglob("*.js")):
        if script.name != "search.js" and re.search(r"https?://", script.read_text(encoding="utf-8")):
            wrong.append(f"{script.name} names an address outside")
    for chapter in chapters:
        blocks = sum(len(re.findall(r"\$\$.+?\$\$", c.source, re.S)) for c in chapter.notebook.cells
                     if c.cell_type == "markdown")
        if chapter.file in pages and pages[chapter.file].equations < blocks:
            wrong.append(f"{chapter.file} shows {pages[chapter.file].equations} equations, its notebook has at least "
                         f"{blocks}")
    lib = read_settings()["lib_name"]
    for module, entries in modules.items():
        path = ROOT/lib/f"{module.replace('.', '/')}.py"
        names = re.search(r"^__all__ = (\[.*?\])$", path.read_text(encoding="utf-8"),
                          re.M | re.S) if path.is_file() else None
        missing = set(ast.literal_eval(names[1])) - {e.name for e in entries} if names else set()
        wrong += [f"api/{module}.html: {name} is exported but has no entry" for name in sorted(missing)]
    index = json.loads((out/"search.js").read_text(encoding="utf-8").removeprefix("window.SEARCH "
            "= ").rstrip().removesuffix(";"))
    wrong += [f"search: {e['url']!r} {problem}" for e in index if (problem := follow("index.html", e["url"]))]
    wrong += [f"search does not know {e.name}" for entries in modules.values() for e in entries
              if not any(e.name == i["title"] for i in index) or not any(e.name in i["names"].split() for i in index)]
    return wrong


def build(out: Path) -> Site:
    "The whole site."
    sys.path.insert(0, str(ROOT))     # commands are asked for their --help
    return Site(out).build()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=ROOT/read_settings()["doc_path"],
                        help="folder to write (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="check the built site")
    arguments = parser.parse_args()
    try:
        site = build(arguments.out)
    except ValueError as e:
        print(f"make_site: {e}", file=sys.stderr)
        return 2
    (ROOT/"nbs"/"sidebar.yml").write_text(sidebar_yml(site.chapters), encoding="utf-8")
    files = [p for p in arguments.out.rglob("*") if p.is_file()]
    print(f"{sum(p.suffix == '.html' for p in files)} pages, {len(files)} files, "
          f"{sum(p.stat().st_size for p in files)/1e6:.1f} MB in {arguments.out}")
    if not arguments.check:
        return 0
    wrong = check(arguments.out, site.chapters, site.modules)
    print("\n".join(wrong) if wrong else "every link, anchor, picture and equation is in its place")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())