"""The house's own rules: reading order, import time, no pickles, files that are in sync."""
import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHAPTERS = {re.search(r"#\| default_exp (\w+)", text).group(1): path.name.split("_")[0] for path in sorted((ROOT/"nbs").glob("[0-9]*.ipynb"))
            if re.search(r"#\| default_exp (\w+)", text := path.read_text(encoding="utf-8"))}


def imported_chapters(module: str) -> set[str]:
    "Chapters that a module imports, anywhere in its text."
    tree = ast.parse((ROOT/"apse_nb"/f"{module}.py").read_text(encoding="utf-8"))
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.removeprefix("apse_nb.").split(".")[0] if node.level == 0 else node.module.split(".")[0])
    return names & set(CHAPTERS)


@pytest.mark.parametrize("module", CHAPTERS)
def test_imports_point_backwards(module):
    ahead = {m for m in imported_chapters(module) if CHAPTERS[m] >= CHAPTERS[module]}
    assert not ahead, f"{module} (chapter {CHAPTERS[module]}) imports {ahead}, which a reader has not met yet"


def test_nothing_is_unpickled():
    for path in (ROOT/"apse_nb").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\bimport pickle|pickle\.load|torch\.load\(|allow_pickle=True|joblib", text), path.name


def test_import_leaves_the_heavy_packages_alone():
    code = "import apse_nb, sys, json; print(json.dumps([m for m in ('torchvision', 'pandas', 'matplotlib', 'accelerate', 'click') if m in sys.modules]))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert json.loads(out.stdout) == []


def test_torchvision_works_beside_this_torch():
    code = "import apse_nb, torchvision, torch; from torchvision.models import resnet18; print(tuple(resnet18()(torch.zeros(1, 3, 64, 64)).shape))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert out.stdout.strip() == "(1, 1000)", out.stderr[-500:]


def test_shipped_weights_are_small():
    for path in (ROOT/"data"/"weights").glob("*.safetensors"):
        assert path.stat().st_size <= 1_500_000, f"{path.name} has {path.stat().st_size} bytes"


def test_notebooks_name_no_place_of_one_machine():
    for path in [*(ROOT/"nbs").glob("*.ipynb"), ROOT/"README.md"]:
        found = re.findall(r"/root/[\w.]+|/work/\w+|/home/\w+", path.read_text(encoding="utf-8"))
        assert not found, f"{path.name}: {sorted(set(found))}"
