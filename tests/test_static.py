"The JavaScript and CSS of the widgets and of the site's moving figures: they parse, fit on a screen, and ask nobody."
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STATIC = [*sorted((ROOT/"apse_nb"/"static").rglob("*.*")), *sorted((ROOT/".ci"/"site_builder"/"live").glob("*.js"))]


@pytest.mark.parametrize("path", [p for p in STATIC if p.suffix == ".js"], ids=lambda p: p.name)
def test_javascript_parses(path, tmp_path):
    node = shutil.which("node")
    if node is None:
        pytest.skip("this test needs node")
    module = tmp_path/"module.mjs"               # as a module, whatever its name
    module.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run([node, "--check", module], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", [p for p in STATIC if p.suffix in (".js", ".css")], ids=lambda p: p.name)
def test_static_files_keep_the_house_rules(path):
    text = path.read_text(encoding="utf-8")
    assert not [line for line in text.splitlines() if len(line) > 122]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    outside = [address for address in re.findall(r"https?://[^\s\"'`]+", text) if "w3.org" not in address]
    assert not outside, f"{path.name} names {outside}"
