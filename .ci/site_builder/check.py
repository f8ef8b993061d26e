"""Reads a built site and says what is wrong with it."""
import ast
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .book import ROOT, Chapter, read_settings
from .entries import Entry


class Page(HTMLParser):
    "What the checker needs to know of one page."

    def __init__(self, text: str):
        super().__init__()
        self.ids: list[str] = []
        self.links: list[tuple[str, str, str]] = []   # element, attribute, address
        self.no_alt: list[str] = []
        self.title, self.text = "", []
        self.h1 = self.equations = 0
        self.open = []                                # elements whose text is no prose
        self.feed(re.sub(r"<pre\b.*?</pre>", "", text, flags=re.S))    # code and what it prints hold no links

    def handle_starttag(self, tag, attributes):
        a = dict(attributes)
        if "srcdoc" in a:  # a page on show within the page: it must ask for nothing; its links are those of the exhibit
            inner = Page(a.pop("srcdoc"))
            self.links += [link for link in inner.links if link[0] != "a"]
            self.no_alt += inner.no_alt
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
        lost = parts.fragment and inner in pages and unquote(parts.fragment) not in pages[inner].ids
        return f"has no place called {parts.fragment!r}" if lost else ""

    for name, page in pages.items():
        if not page.title.strip():
            wrong.append(f"{name} has no title")
        if page.h1 != 1:
            wrong.append(f"{name} has {page.h1} first-level headings")
        wrong += [f"{name}: two places are called {i!r}"
                  for i in sorted({i for i in page.ids if page.ids.count(i) > 1})]
        wrong += [f"{name}: the image {src} has no description" for src in page.no_alt]
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
            elif parts.scheme == "mailto" and tag == "a":
                pass
            elif address.startswith("data:image/") and tag in ("img", "link"):
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
        ours = script.name != "search.js" and script.parent.name != "onnxruntime"
        if ours and re.search(r"https?://(?!www\.w3\.org/2000/svg)", script.read_text(encoding="utf-8")):
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
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        names = re.search(r"^__all__ = (\[.*?\])$", text, re.M | re.S)
        missing = set(ast.literal_eval(names[1])) - {e.name for e in entries} if names else set()
        wrong += [f"api/{module}.html: {name} is exported but has no entry" for name in sorted(missing)]
    script = (out/"search.js").read_text(encoding="utf-8")
    index = json.loads(script.removeprefix("window.SEARCH = ").rstrip().removesuffix(";"))
    wrong += [f"search: {e['url']!r} {problem}" for e in index if (problem := follow("index.html", e["url"]))]
    wrong += [f"search does not know {e.name}" for entries in modules.values() for e in entries
              if not any(e.name == i["title"] for i in index) or not any(e.name in i["names"].split() for i in index)]
    return wrong
