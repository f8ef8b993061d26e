"""The pages of one build: chapters, API, search."""
import html
import json
import posixpath
import re
import shutil
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, unquote

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from nbconvert.filters import strip_ansi

from .book import ROOT, WINGS, Chapter, exported_to, split_directives, split_parts
from .entries import Entry
from .index import Index
from .live import moving_beside
from .markup import Renderer, colour, first_sentences, keep_short, plain, ticked

TEMPLATES = Path(__file__).resolve().parent/"templates"      # with style and script
# what browsers show for a lone letter in an equation
ITALIC = "".join(map(chr, [*range(0x1d434, 0x1d468), *range(0x1d6e2, 0x1d71c), 0x210e]))


def weigh(size: int) -> str:
    "Bytes in words."
    return f"{size/1e6:.1f} MB" if size >= 1e6 else f"{size/1e3:.0f} kB"


class Site(Index):
    "Everything that goes into one build."

    def __init__(self,
                 out: Path,                     # folder to write; emptied first
                 notebooks: Path = ROOT/"nbs",  # where the chapters lie
                ):
        super().__init__(notebooks)
        self.out = out
        self.search: list[dict] = []
        self.characters: set[str] = set(ITALIC)     # of all equations, for the font
        self.env = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True,
                               lstrip_blocks=True)
        self.env.globals.update(site=self, settings=self.settings, colour=lambda code: Markup(colour(code)),
                                docstring=self.docstring, ticked=ticked, weigh=weigh)

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
        listed = [(module, entries[0].chapter, entries) for module, entries in self.modules.items()]
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

    def build(self,
              further: Callable[["Site"], None] | None = None,     # writes more pages, of which font and search know
             ) -> "Site":
        if self.out.exists():
            if any(self.out.iterdir()) and not (self.out/"site.css").exists():
                raise ValueError(f"{self.out} is not empty and holds no site; give another folder or empty it.")
            shutil.rmtree(self.out)
        self.out.mkdir(parents=True)
        for name in ("site.css", "site.js"):
            shutil.copy(TEMPLATES/name, self.out/name)
        for chapter in self.chapters:
            ChapterPage(self, chapter).write()
        self.api()
        if further is not None:
            further(self)
        for name in sorted(self.wanted):
            source, target = (self.notebooks/unquote(name)).resolve(), (self.out/unquote(name)).resolve()
            # anything else is left for the checker to report
            inside = source.is_relative_to(self.notebooks.resolve()) and target.is_relative_to(self.out.resolve())
            if inside and source.is_file():
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
        self.said, self.images = "", 0  # the last paragraph; images so far
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
                          lambda m: self.image_tag(kind, data, m[1]), text)
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
            warn = " warn" if out.name == "stderr" else ""
            return f'<pre class="out{warn}">{html.escape(strip_ansi(out.text).rstrip())}</pre>'
        if out.output_type == "error":
            return f'<pre class="out warn">{html.escape(strip_ansi(chr(10).join(out.traceback)))}</pre>'
        data = out.get("data", {})
        for kind in ("image/png", "image/jpeg", "image/svg+xml"):
            if kind in data:
                alt = out.get("metadata", {}).get(kind, {}).get("alt") or directives.get("fig-alt", "").strip("\"'")
                return f"<figure>{self.image_tag(kind, data[kind], alt)}</figure>"
        if "application/vnd.jupyter.widget-view+json" in data:
            return '<p class="aside">Here the notebook shows a widget; it needs a running kernel.</p>'
        if "text/html" in data:
            return f'<div class="table data">{keep_short(self.render.convert_html(data["text/html"]))}</div>'
        for kind in ("text/markdown", "text/latex"):
            if kind in data:
                return f'<div class="printed">{self.render.convert_output(data[kind])}</div>'
        return f'<pre class="out">{html.escape(data["text/plain"])}</pre>' if data.get("text/plain") else ""

    def image_tag(self, kind: str, data: str, alt: str) -> str:
        "An image as a file; without a description it gets the section's title and the sentences before it."
        self.images += 1
        ending = dict(png="png", jpeg="jpg").get(kind[6:], "svg")
        file = "_".join([*filter(None, self.chapter.folder.split("/")), self.chapter.path.stem,
                         f"{self.images}.{ending}"])
        path = self.site.out/"figures"/file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if kind.endswith("xml") else b64decode(data))
        where = self.site.settings["title"] if self.chapter.name == "start" else self.chapter.name.capitalize()
        alt = alt or f"{where}, picture {self.images}, {self.sections[-1]['title'] or plain(self.title)}: {self.said}"
        return (f'<img src="{self.chapter.root}figures/{quote(path.name)}" alt="{html.escape(alt)}"'
                f'{self.site.size_of(path)} loading="lazy">')

    def write(self) -> None:
        chapter, chapters = self.chapter, self.site.chapters
        at = chapters.index(chapter)
        notebook = "/".join(filter(None, [chapter.folder, chapter.path.name]))
        toc = [(level, anchor, Markup(text)) for level, anchor, text in self.render.headings if level in (2, 3)]
        self.site.write(chapter.file, "chapter.html", chapter=chapter, title=chapter.title,
                        moving=moving_beside(notebook) if self.site.live else {},
                        shown_title=Markup(self.title), shown_subtitle=Markup(self.subtitle),
                        description=plain(self.subtitle),
                        body=Markup("\n".join(self.blocks)), toc=toc,
                        module=chapter.module if chapter.module in self.site.modules else "",
                        before=chapters[at - 1] if at else None,
                        after=chapters[at + 1] if at + 1 < len(chapters) else None)
        name = f"{chapter.number or WINGS.get(chapter.wing, chapter.wing)} {chapter.title}".strip()
        for s in self.sections:
            place = name if s["title"] else chapter.name
            self.site.search.append(dict(url=chapter.url + (f"#{s['anchor']}" if s["anchor"] else ""),
                                         title=s["title"] or chapter.title, place=place, text=s["text"].strip(),
                                         names=" ".join(s["names"])))
