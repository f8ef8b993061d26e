"""Markdown, equations and code as HTML."""
import html
import posixpath
import re
from urllib.parse import unquote, urlsplit

from markupsafe import Markup
from math_core import LatexError
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from .index import Index


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
                 site: Index,
                 where: str,         # what a complaint names
                 module: str = "",   # names of this module come first
                 root: str = "",     # from the page to the site's first folder
                 folder: str = "",   # of the notebook that links are written in, within nbs/
                ):
        super().__init__(escape=False)
        self.site, self.where = site, where
        self.module, self.root, self.folder = module, root, folder
        self.headings: list[tuple[int, str, str]] = []   # of the table of contents: level, anchor, HTML
        self.taken: set[str] = set()                     # anchors
        self.deeper, self.listed = 0, True

    def convert(self, text: str) -> str:
        return MarkdownWithMath(renderer=self)(text)

    def convert_output(self, text: str) -> str:
        "Markdown that a cell printed: its headings go below the page's and not into the table of contents."
        before = self.deeper, self.listed
        self.deeper, self.listed = max([3, *(level for level, _, _ in self.headings[-1:])]), False
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
        link = f'<a class="anchor" href="#{anchor}" aria-label="Link to this section">#</a>'
        return f'<h{level} id="{anchor}">{text} {link}</h{level}>\n'

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
        shown = f"<code>{html.escape(html.unescape(text))}</code>"
        target = self.site.entry_of(html.unescape(text), self.module)
        return f'<a class="name" href="{self.root}{target}">{shown}</a>' if target else shown

    def block_code(self, code: str, info: str | None = None) -> str:
        language = (info or "text").split()[0]
        return f'<pre class="code"><code>{colour(code.rstrip(), language)}</code></pre>\n'

    def table(self, text: str) -> str:
        return f'<div class="table"><table>{keep_short(text)}</table></div>\n'
