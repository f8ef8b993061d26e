"""Writes the pages with figures that move without a kernel, see `live`."""
import json

from markupsafe import Markup

from .book import ROOT, read_settings
from .live import PAGES, SOURCES, bundle, read_source
from .live_data import DATA
from .markup import Renderer, plain
from .pages import Site

STATIC = ROOT/read_settings()["lib_name"]/"static"
STYLES = ("circle.css", "message.css", "upload.css")     # of the widgets' parts that the pages show


def write_live_pages(site: Site) -> None:
    "All of them, with their scripts, their style and what they load; the search knows them, too."
    folder = site.out/"live"
    folder.mkdir(parents=True)
    sheets = [*(STATIC/name for name in STYLES), SOURCES/"live.css"]
    (folder/"live.css").write_text("\n".join(s.read_text(encoding="utf-8") for s in sheets), encoding="utf-8")
    for name in PAGES:
        title, subtitle, text = read_source(name)
        files = set(folder.rglob("*"))
        data = json.dumps(DATA[name](folder), ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
        (folder/f"{name}.js").write_text(bundle(SOURCES/f"{name}.js"), encoding="utf-8")
        loaded = set(folder.rglob("*")) - files | {folder/"live.css"}
        weight = len(data.encode()) + sum(f.stat().st_size for f in loaded if f.is_file())
        body = Renderer(site, f"live/{name}.md", root="../").convert(text)
        runtime = [f"onnxruntime/{f.name}" for f in loaded if f.parent.name == "onnxruntime" and f.suffix == ".js"]
        site.write(f"live/{name}.html", "live.html", title=title, subtitle=subtitle, description=subtitle, name=name,
                   scripts=[*runtime, f"{name}.js"], body=Markup(body), data=Markup(data), weight=weight)
        site.search.append(dict(url=f"live/{name}.html", title=title, place="Figures that move",
                                text=f"{subtitle} {plain(body)}", names=""))
