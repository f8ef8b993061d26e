"""Whoever follows a pointer arrives: chapters, notebooks, sections, links between notebooks, modules named in text."""
import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = {p.relative_to(ROOT/"nbs").with_suffix("").as_posix(): p for p in sorted((ROOT/"nbs").rglob("*.ipynb"))
             if ".ipynb_checkpoints" not in p.parts}
CHAPTERS = {name[:2]: name for name in NOTEBOOKS if re.match(r"\d\d_", name)}
WINGS = {name.split("/")[0] for name in NOTEBOOKS if "/" in name}
OTHERS = [ROOT/"README.md", *sorted((ROOT/"tests").glob("*.py")), *sorted((ROOT/".ci").glob("*.py"))]


def sources(name: str) -> list[tuple[str, str]]:
    "Kind and text of each cell of a notebook."
    cells = json.loads(NOTEBOOKS[name].read_text(encoding="utf-8"))["cells"]
    return [(c["cell_type"], "".join(c["source"])) for c in cells]


def headings(name: str) -> set[str]:
    "Headings of a notebook, without marks and in lower case."
    found = re.findall(r"^#+ (.+)$", "\n".join(text for kind, text in sources(name) if kind == "markdown"), re.M)
    return {re.sub(r"[*`$]", "", heading).strip().lower() for heading in found}


def wrong_pointers(text: str) -> list[str]:
    "Pointers in a text that lead nowhere."
    flat, wrong = re.sub(r"\s+(?:# )?", " ", text), []
    for number in re.findall(r"\b[Cc]hapter (\d[a-z]?|\d\d[a-z]?)\b(?!\.)", flat):
        wrong += [] if number in CHAPTERS else [f"chapter {number}"]
    for several in re.findall(r"\b[Cc]hapters ((?:\d+[a-z]?\b(?:, and |, | and | or | to )?)+)", flat):
        wrong += [f"chapter {number}" for number in re.findall(r"\d+[a-z]?", several) if number not in CHAPTERS]
    for number, name in re.findall(r"\[(\d\d[a-z]?)\b[^\]]*\]\((?:nbs/)?([\w/]+)\.ipynb", flat):
        if CHAPTERS.get(number) != name:
            wrong.append(f"chapter {number} as {name}")
    for number, section in re.findall(r"\b[Cc]hapter (\d\d)(?:,|'s)? section [\"*“]([^\"*”]+)[\"*”]", flat):
        if number in CHAPTERS and section.lower() not in headings(CHAPTERS[number]):
            wrong.append(f"chapter {number}, section {section!r}")
    for wing, name in re.findall(r"`(\w+)/(\w+)`", flat):
        if wing in WINGS and f"{wing}/{name}" not in NOTEBOOKS:
            wrong.append(f"notebook {wing}/{name}")
    for name in re.findall(r"`live/(\w+)`", flat):                   # a page of the site, without a kernel
        wrong += [] if (ROOT/".ci"/"site_builder"/"live"/f"{name}.md").is_file() else [f"page live/{name}"]
    modules = re.findall(r"\b(?:from|import) (apse_nb(?:\.\w+)*)", flat)
    modules += re.findall(r"`(apse_nb(?:\.[a-z_]+)+)`", flat)
    for module, names in re.findall(r"\bfrom (apse_nb(?:\.\w+)*) import \(?(\w+(?:, \w+)*)", flat):
        modules += [f"{module}.{name}" for name in names.split(", ")]
    wrong += [f"module {module}" for module in modules if not exists(module)]
    return sorted(set(wrong))


def exists(module: str) -> bool:
    "Whether it is a module or package of this project, or a module's public name."
    path = ROOT.joinpath(*module.split("."))
    if path.is_dir() or path.with_suffix(".py").is_file():
        return True
    inside = path.parent.with_suffix(".py") if path.parent.with_suffix(".py").is_file() else path.parent/"__init__.py"
    return inside.is_file() and bool(re.search(rf"\b{path.name}\b", inside.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_pointers_lead_somewhere(name):
    assert wrong_pointers("\n\n".join(text for _, text in sources(name))) == []


@pytest.mark.parametrize("path", OTHERS, ids=lambda p: p.name)
def test_pointers_outside_notebooks(path):
    if path.name != Path(__file__).name:
        assert wrong_pointers(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_links_between_notebooks(name):
    for kind, text in sources(name):
        for target in re.findall(r"\]\(([\w./-]+\.(?:ipynb|png|svg))[)#]", text) if kind == "markdown" else []:
            assert (NOTEBOOKS[name].parent/target).is_file(), target


def test_what_the_test_finds():
    assert wrong_pointers("see chapter 99, chapters 04 and 15a, and the notebook `tools/nothing`") == [
        "chapter 15a", "chapter 99", "notebook tools/nothing"]
    assert wrong_pointers("the pages `live/ranks` and `live/nothing`") == ["page live/nothing"]
    assert wrong_pointers("chapter 09's section *No such heading*") == ["chapter 09, section 'No such heading'"]
    assert wrong_pointers("from apse_nb.metrics import evaluate, `apse_nb.metrics`, `apse_nb.nowhere`") == [
        "module apse_nb.nowhere"]
    assert wrong_pointers("from apse_nb.metrics import nothing_like_it") == ["module apse_nb.metrics.nothing_like_it"]
    assert importlib.util.find_spec("apse_nb.metrics")
