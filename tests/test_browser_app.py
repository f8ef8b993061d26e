"apse_explore as a user meets it: the command is started, the page opened, a click in one tab followed into the next."
import os
import re
import signal
import subprocess
import sys

import psutil
import pytest
from conftest import free_port, stop, wait_for

from apse_nb.scenes import make_scenes, save_scenes

HOSTILE = "<img src=x onerror=document.title='hit'>.png"


@pytest.fixture
def folder(tmp_path):
    "Forty drawn pictures in class folders, the first of them with a hostile name, and one file that is no picture."
    root = tmp_path/"mine"
    save_scenes(make_scenes(40, size=96, seed=3, workers=1), root)
    os.rename(root/"masks", tmp_path/"masks")
    first = min((root/"amusement").iterdir())
    first.rename(first.with_name(HOSTILE))
    (root/"awe"/"notes.png").write_text("not a picture")
    return root


@pytest.fixture
def explore(folder, tmp_path):
    "The command, running: its process, what it said, and where its errors go."
    code, errors = "from apse_nb.widgets.commands import apse_explore; apse_explore(prog_name='apse_explore')", tmp_path/"errors"
    process = subprocess.Popen([sys.executable, "-c", code, folder.name, "--port", str(free_port())], cwd=tmp_path,
                               stdout=subprocess.PIPE, stderr=errors.open("w"), text=True)
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("Open this address"):
            break
    else:
        raise AssertionError(errors.read_text())
    yield process, said, errors
    stop(process)                              # if the test has not


def test_apse_explore(explore, page, shot):
    process, said, errors = explore
    assert "40 pictures, 1 file skipped" in said
    address, plain = re.search(r"^((http://127\.0\.0\.1:\d+/)\?token=\S{20,})$", said, re.M).groups()
    wait_for(plain + "login", process, errors)
    page.goto(plain)
    # nobody gets in without the token
    assert "/login" in page.url and page.get_by_label("Password or token").is_visible()

    page.goto(address, wait_until="commit")
    page.get_by_text(re.compile("Running|Executing")).wait_for()  # something to look at while the network is loaded
    results = page.locator("[aria-label='results, most similar first'] button")
    results.first.wait_for()
    assert page.get_by_text(f"Query: amusement/{HOSTILE}").is_visible()                          # shown as text,
    assert page.locator("img[src=x]").count() == 0 and page.title() != "hit"                     # not obeyed
    shot(page, "app_pictures")

    name = re.search(r"\w+/scene_\w+\.png", results.nth(2).locator("img").get_attribute("alt"))[0]
    results.nth(2).click()
    page.get_by_text(f"Query: {name}").wait_for()
    page.get_by_role("tab", name="Attention").click()
    page.get_by_text(f"The query of the first tab: {name}").wait_for()  # the second tab follows the first
    page.locator(f"img[alt^='Your picture {name}.']:visible").wait_for()
    for tab in ("Attention", "Negatives", "Losses"):
        page.get_by_role("tab", name=tab).click()
        picture = page.locator("img[alt]:visible").first
        picture.wait_for()
        assert picture.evaluate("i => i.decode().then(() => i.naturalWidth)") > 300
        shot(page, f"app_{tab.lower()}")

    behind = psutil.Process(process.pid).children(recursive=True)
    assert behind
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert not psutil.wait_procs(behind, 10)[1]  # no process stays behind
    assert "Traceback" not in errors.read_text()