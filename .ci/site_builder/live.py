"""Pages with figures that move without a kernel: live/NAME.md (title, subtitle, text) and live/NAME.js, bundled with
the modules beside it and in apse_nb/static that it imports. What the script needs from Python is written into the page.

The bundles are plain scripts: browsers load no modules from a folder, and the site is to open without a server."""
import re
from pathlib import Path

from .live_data import DATA

SOURCES = Path(__file__).resolve().parent/"live"
PAGES = tuple(DATA)                                       # in the order of the table of contents


def bundle(path: Path) -> str:
    "A module and all that it imports as one plain script."
    done: dict[Path, str] = {}
    pieces: list[str] = []
    _add_module(path.resolve(), done, pieces)
    return '"use strict";\n(() => {\n' + "\n".join(pieces) + "\n})();\n"


def _add_module(path: Path, done: dict[Path, str], pieces: list[str]) -> str:
    "The name under which a module's exports are kept; its text, as a function that returns them, joins the pieces."
    if path in done:
        return done[path]
    text = path.read_text(encoding="utf-8")

    def bring(m: re.Match) -> str:
        source = _add_module((path.parent/m[2]).resolve(), done, pieces)
        names = m[1].replace(" as ", ": ") if m[1].startswith("{") else f"{{ default: {m[1]} }}"
        return f"const {names} = {source};"

    text = re.sub(r'^import\s+([^"]+?)\s+from\s+"([^"]+)";', bring, text, flags=re.M)
    given = re.findall(r"^export (?:async )?(?:const|function) (\w+)", text, re.M)
    if re.search(r"^export default ", text, re.M):
        given.append("default: standard")
    text = re.sub(r"^export default ", "const standard = ", text, flags=re.M)
    text = re.sub(r"^export ", "", text, flags=re.M)
    if re.search(r"^(import|export)\b", text, re.M):
        raise ValueError(f"{path.name}: this form of import or export cannot be bundled.")
    done[path] = f"module{len(done)}"
    pieces.append(f"const {done[path]} = (() => {{\n{text}\nreturn {{ {', '.join(given)} }};\n}})();")
    return done[path]


def titles() -> dict[str, str]:
    "Title of each page, by its name."
    return {name: read_source(name)[0] for name in PAGES}


def moving_beside(notebook: str) -> dict[str, str]:
    "Title of each page that names this notebook (its path below nbs), by the page's name."
    return {name: title for name, title in titles().items() if f"]({notebook})" in read_source(name)[2]}


def read_source(name: str) -> tuple[str, str, str]:
    "Title, subtitle and text of a page, as Markdown."
    m = re.match(r"# (.+)\n> (.+)\n", text := (SOURCES/f"{name}.md").read_text(encoding="utf-8"))
    return m[1], m[2], text[m.end():]
