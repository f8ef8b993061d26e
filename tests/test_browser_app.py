"apse_explore as a user meets it: the command is started, the page opened, a click in one tab followed into the next."
import os
import re
import signal
import subprocess
import sys
from urllib.request import urlopen

import pytest

from apse_nb.scenes import make_scenes, save_scenes


@pytest.fixture
def folder(tmp_path):
    "Forty drawn pictures in class folders, one of them with a hostile name, and one file that is no picture."
    save_scenes(make_scenes(40, size=96, seed=3), tmp_path/"mine")
    os.rename(tmp_path/"mine"/"masks", tmp_path/"masks")
    first = sorted((tmp_path/"mine"/"amusement").iterdir())[0]
    first.rename(first.with_name("<img src=x onerror=document.title='hit'>.png"))
    (tmp_path/"mine"/"awe"/"notes.png").write_text("not a picture")
    return tmp_path/"mine"


@pytest.fixture
def explore(folder, tmp_path):
    "The command, running; yields its process and the address that it prints."
    from conftest import free_port
    command = [sys.executable, "-c", "from apse_nb.app import apse_explore; apse_explore(prog_name='apse_explore')", str(folder), "--port", str(free_port())]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=(tmp_path/"err").open("w"), text=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Open this address"): break
    address = next((line.strip() for line in lines if line.startswith("http")), None)
    assert address, (tmp_path/"err").read_text()
    yield process, address, "".join(lines)
    if process.poll() is None: process.kill()


def test_apse_explore(explore, page, shot):
    process, address, said = explore
    assert re.search(r"40 pictures, 1 files? skipped", said)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=\S+", address)

    page.goto(address.split("?")[0]) if wait(address) else None
    assert "login" in page.url                                            # without the token nobody gets in

    page.goto(address)
    page.get_by_role("tab", name="Pictures").wait_for()
    results = page.locator("[aria-label='results, most similar first'] button")
    results.first.wait_for()
    name = results.nth(2).get_attribute("aria-label") or results.nth(2).inner_text()
    results.nth(2).click()
    shot(page, "app_pictures")

    page.get_by_role("tab", name="Attention").click()
    alt = page.locator("img[alt*='uploaded']:visible, img[alt]:visible").first
    alt.wait_for()
    shot(page, "app_attention")
    for tab in ("Negatives", "Losses"):
        page.get_by_role("tab", name=tab).click()
        page.locator("img[alt]:visible").first.wait_for()
        shot(page, f"app_{tab.lower()}")
    assert "hit" not in page.title()
    assert name

    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


def wait(address: str) -> bool:
    from conftest import wait_for
    import pathlib
    import types
    wait_for(address.split("?")[0] + "voila/static/voila.js", types.SimpleNamespace(poll=lambda: None), pathlib.Path(os.devnull))
    return True
