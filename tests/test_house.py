"""The house's own rules: reading order, import time, no pickles, files that are in sync."""
import ast
import importlib
import json
import re
import subprocess
import sys
from collections import defaultdict
from configparser import ConfigParser
from pathlib import Path

import pytest
from click.testing import CliRunner

import apse_nb

ROOT = Path(__file__).parent.parent
# The course is flat and numbered; wings are folders. Each may import from what stands at its right, and from itself.
COURSE = {m[1]: path.name[:2] for path in sorted((ROOT/"nbs").glob("[0-9]*.ipynb"))
          if (m := re.search(r"#\| default_exp (\w+)", path.read_text(encoding="utf-8")))}
REPORT_LEVEL = {"experiments"}      # the course's chapters on running rows belong to the report's level
MAY_IMPORT = {"tools": set(), "datasets": {"tools"}, "methods": {"tools", "datasets"}, "search": {"tools", "datasets"},
              "widgets": {"tools", "datasets", "methods", "search"}, "report": {"tools", "datasets", "methods"},
              "bench": {"tools", "datasets", "methods", "search", "widgets", "report"}}
HIGHEST_CHAPTER = {"tools": "", "datasets": "02", "methods": "10", "search": "10", "widgets": "12", "report": "12",
                   "bench": "12"}
MODULES = sorted(p.relative_to(ROOT/"apse_nb").with_suffix("").as_posix() for p in (ROOT/"apse_nb").rglob("*.py")
                 if p.name not in ("__init__.py", "_modidx.py"))


def imported_modules(module: str) -> set[str]:
    "Modules of this package that a module imports, anywhere in its text, as 'wing/module' or 'module'."
    path = ROOT/"apse_nb"/f"{module}.py"
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        inside = list(path.relative_to(ROOT).parent.parts)
        parts = inside[:len(inside) - node.level + 1] if node.level else []
        parts += node.module.split(".") if node.module else []
        if parts[:1] != ["apse_nb"]:
            continue
        for names in (parts[1:], *([*parts[1:], a.name] for a in node.names)):
            if "/".join(names) in MODULES:
                found.add("/".join(names))
    return found


@pytest.mark.parametrize("module", MODULES)
def test_arrows_go_up_the_table_of_wings(module):
    wing = module.split("/")[0] if "/" in module else "report" if module in REPORT_LEVEL else None
    for other in sorted(imported_modules(module)):
        its_wing = other.split("/")[0] if "/" in other else "report" if other in REPORT_LEVEL else None
        if wing is None:
            assert its_wing in (None, "tools"), f"{module} is a chapter of the course and imports {other}"
            met = its_wing or COURSE[other] < COURSE[module]
            assert met, f"chapter {module} imports {other}, which a reader has not met yet"
        elif its_wing is None:
            assert COURSE[other] <= HIGHEST_CHAPTER[wing], f"{module} imports chapter {other}"
        else:
            assert its_wing == wing or its_wing in MAY_IMPORT[wing], f"{module} imports {other}"


def test_modules_are_of_one_idea():
    "A module that a reader cannot hold in mind is two: at most 450 lines."
    long = {module: n for module in MODULES
            if (n := len((ROOT/"apse_nb"/f"{module}.py").read_text(encoding="utf-8").splitlines())) > 450}
    assert not long, f"split {long}"


def test_nothing_is_unpickled():
    for path in (ROOT/"apse_nb").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\bimport pickle|pickle\.load|torch\.load\(|allow_pickle=True|joblib", text), path.name


def modules_after(code: str) -> set[str]:
    "What a fresh process has imported after some code."
    out = subprocess.run([sys.executable, "-c", f"{code}\nimport sys\nprint('MODULES', *sys.modules)"],
                         capture_output=True, text=True, cwd=ROOT)
    assert out.returncode == 0, out.stderr[-1000:]
    return set(out.stdout.rpartition("MODULES ")[2].split())


def test_import_costs_nothing():
    "A tenth of what torch costs would be noticed; nothing but the standard library is certain."
    loaded = modules_after("import apse_nb") - modules_after("")
    assert {m.split(".")[0] for m in loaded} <= {"apse_nb", *sys.stdlib_module_names}


@pytest.mark.parametrize("module", ["search.gallery", "search.commands", "report.commands", "widgets.server"])
def test_what_should_answer_at_once_does_without_torch(module):
    "A search in an index, help, and the first words of a page."
    assert "torch" not in {m.split(".")[0] for m in modules_after(f"import apse_nb.{module}")}


def console_scripts() -> dict[str, str]:
    config = ConfigParser(delimiters=["="])
    config.read(ROOT/"settings.ini", encoding="utf-8")
    return dict(entry.split("=") for entry in config["DEFAULT"]["console_scripts"].split())


HEAVY = {"torch", "torchvision", "numpy", "pandas", "scipy", "sklearn", "skimage", "matplotlib", "accelerate", "PIL",
         "IPython", "ipywidgets", "anywidget", "papermill", "nbconvert", "nbformat", "faiss", "qdrant_client",
         "qdrant_edge"}


@pytest.mark.parametrize("name, place", console_scripts().items())
def test_help_answers_at_once(name, place):
    "No time is measured: what takes time is the import of heavy packages."
    module, function = place.split(":")
    code = f"from {module} import {function}\n{function}.main(['--help'], '{name}', standalone_mode=False)"
    assert not modules_after(code) & HEAVY


@pytest.mark.parametrize("name, place", console_scripts().items())
def test_version(name, place):
    module, function = place.split(":")
    command = getattr(importlib.import_module(module), function)
    assert CliRunner().invoke(command, ["--version"]).output == f"{name} {apse_nb.__version__}\n"


def test_torchvision_works_beside_this_torch():
    code = ("import apse_nb, torchvision, torch; from torchvision.models import resnet18; "
            "print(tuple(resnet18()(torch.zeros(1, 3, 64, 64)).shape))")
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert out.stdout.strip() == "(1, 1000)", out.stderr[-500:]


def test_shipped_weights_are_small():
    for path in (ROOT/"data"/"weights").glob("*.safetensors"):
        assert path.stat().st_size <= 1_500_000, f"{path.name} has {path.stat().st_size} bytes"


def test_notebooks_name_no_place_of_one_machine():
    for path in [*(ROOT/"nbs").rglob("*.ipynb"), ROOT/"README.md"]:
        found = re.findall(r"/root/[\w.]+|/work/\w+|/home/\w+", path.read_text(encoding="utf-8"))
        assert not found, f"{path.name}: {sorted(set(found))}"


def test_notebooks_keep_no_state_of_widgets():
    "Half a megabyte a notebook that no page needs: execute with `--ExecutePreprocessor.store_widget_state=False`."
    assert [path.name for path in (ROOT/"nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
            and "widgets" in json.loads(path.read_text(encoding="utf-8"))["metadata"]] == []


def test_public_names_are_few():
    "What a user calls is exported; what only the house uses is `#| exporti` (about 250 names are for users)."
    texts = [path.read_text(encoding="utf-8") for path in (ROOT/"apse_nb").rglob("*.py")]
    lists = [found[1] for text in texts if (found := re.search(r"^__all__ = (\[.*?\])$", text, re.M | re.S))]
    assert 200 < sum(len(ast.literal_eval(names)) for names in lists) <= 280


def test_a_missing_package_is_found_in_the_extra_that_is_named():
    "`tools.extras` knows packages by what is imported, settings.ini by what is installed."
    from apse_nb.tools.extras import _EXTRAS
    config = ConfigParser(delimiters=["="])
    config.read(ROOT/"settings.ini", encoding="utf-8")
    named = dict(sklearn="scikit-learn", skimage="scikit-image", pytorch_grad_cam="grad-cam", faiss="faiss-cpu")
    for extra, modules in _EXTRAS.items():
        brought = re.findall(r"(?<!\S)[\w-]+", config["DEFAULT"][f"{extra}_requirements"])
        assert {named.get(module, module.replace("_", "-")) for module in modules.split()} <= set(brought), extra


def test_a_name_has_one_meaning():
    "A function, class or constant of one module has no namesake in another; what begins with _ is a module's own."
    places = defaultdict(list)
    for module in MODULES:
        for node in ast.parse((ROOT/"apse_nb"/f"{module}.py").read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                places[node.name].append(module)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for name in {n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name)} - {"__all__"}:
                    places[name].append(module)
    assert not {name: found for name, found in places.items() if len(found) > 1 and not name.startswith("_")}
