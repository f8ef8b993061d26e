"""Chapter 12 in a real browser: the attention explorer in Voila by keyboard and mouse, hostile uploads, and a smoke
test in JupyterLab."""
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from conftest import free_port

WIDGET = """
from apse_nb.tools.files import data_path
from apse_nb.widgets.attention import AttentionExplorer
from apse_nb.scenes import make_scenes
from apse_nb.training import Recipe, load_model

model, facts = load_model(data_path("weights/scenes_apse.safetensors"))
AttentionExplorer(model, make_scenes(8, seed=1), Recipe(**facts["recipe"]).crop)
"""
FOLD = "advanced: variants of Eq. 1-2"
CONTROLS = ["image", "upload an image", "opacity", "outline of the true region", "map of every class",
            "grad-cam towards the reference", "spatial", "rescale by h·w", "norm"]


def shown(page) -> str:
    "The pixels of the picture on the page, as a data address."
    return page.locator("img[alt]").evaluate("""(img) => {
        const canvas = document.createElement("canvas");
        canvas.width = img.naturalWidth; canvas.height = img.naturalHeight;
        if (canvas.width) canvas.getContext("2d").drawImage(img, 0, 0);
        return canvas.toDataURL(); }""")


def after(page, old: str) -> str:
    "The pixels of the picture as soon as they differ from the old ones and stay."
    new = old
    for _ in range(150):
        page.wait_for_timeout(200)
        last, new = new, shown(page)
        if new == last != old:
            return new
    raise AssertionError("the picture did not change")


def focused(page) -> str:
    "The name of the control that has the focus."
    return page.evaluate("""() => {
        const e = document.activeElement;
        const label = e.labels && e.labels[0] && e.labels[0].innerText;
        return (e.getAttribute("aria-label") || label || e.innerText || "").trim(); }""")


def tab_to(page, name: str) -> None:
    "Press Tab until a control has the focus."
    for _ in range(40):
        if focused(page) == name:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{name!r} cannot be reached by Tab")


@pytest.fixture
def files(tmp_path):
    """A picture, a text that calls itself one, a file that is too large, and a picture whose name is HTML and
    mathematics."""
    from PIL import Image
    names = dict(good="harbour.png", text="notes.png", large="large.png",
                 hostile="$\\frac{<img src=x onerror='window.hacked=1'>.png")
    paths = {key: tmp_path/name for key, name in names.items()}
    Image.linear_gradient("L").convert("RGB").resize((140, 90)).save(paths["good"])
    paths["text"].write_text("These are no pixels.")
    paths["large"].write_bytes(bytes(12_000_000))
    Image.new("RGB", (50, 70), "teal").save(paths["hostile"])
    return paths


def test_the_words_agree_with_the_scores():
    "What the explorer says of a map and a region, against sums pixel by pixel and against the scores of chapter 11."
    import numpy as np
    import torch

    from apse_nb.explore import HeadView, NetworkView, describe
    from apse_nb.tools.plotting import localisation
    rng, said = np.random.default_rng(0), set()
    maps, masks = rng.random((20, 1, 6, 6), dtype=np.float32)**4, rng.random((20, 6, 6)) < .3
    large = masks.repeat(11, 1).repeat(11, 2)                        # the same regions at 66 x 66
    scores = localisation(torch.from_numpy(maps), torch.from_numpy(masks))
    enlarged = localisation(torch.from_numpy(maps), torch.from_numpy(large))
    assert np.allclose(scores["chance"], enlarged["chance"], atol=1e-6)
    for i, (a_map, mask) in enumerate(zip(maps[:, 0], masks)):
        pixels = [(a_map[y, x], mask[y, x]) for y in range(6) for x in range(6)]
        hit = bool(max(pixels)[1])
        share = float(sum(value for value, inside in pixels if inside)/sum(value for value, _ in pixels))
        area = sum(bool(inside) for _, inside in pixels)/36
        assert np.allclose([hit, share, area], [scores[key][i] for key in ("pointing", "energy", "chance")], atol=1e-6)
        head = HeadView("polarity map", ("negative", "positive"), ("blue", "red"), np.array([.25, .75]), None, a_map)
        for region, energy in ((mask, share), (large[i], enlarged["energy"][i])):
            words = describe(NetworkView(np.zeros((66, 66, 3), np.uint8), torch.zeros(2), (head,)), "Drawn", region)
            where = "inside" if hit else "outside"
            assert words.endswith(f", {where} the true region, which holds {100*energy:.0f} % of the map and covers "
                                  f"{100*area:.0f} % of the image."), words
        said.add(hit)
    assert said == {True, False}


def test_attention_explorer_in_voila(page, serve, shot, files):
    from playwright.sync_api import expect
    page.goto(serve(WIDGET))
    img, status, alert, upload = (
        page.locator("img[alt]"),
        page.get_by_role("status"),
        page.get_by_role("alert"),
        page.get_by_label("upload an image"),
    )
    def said(words):
        return expect(img).to_have_attribute("alt", re.compile(words))
    expect(status).to_contain_text("of it inside")
    said(r"^Image 0, amusement\. Polarity map: (posi|nega)tive \d+ % .*, highest .*Emotion map: \w+ \d+ % and \w+ "
         r"\d+ %, highest ")
    first = shown(page)

    expect(page.get_by_label("spatial")).to_be_hidden()              # folded away, until it is asked for by keyboard
    tab_to(page, FOLD)
    page.keyboard.press("Space")
    expect(page.get_by_label("spatial")).to_be_visible()
    page.get_by_role("slider", name="image").focus()
    reached = []                                                     # every control, in the order of Tab
    for _ in range(25):
        if (name := focused(page)) and name not in reached:
            reached.append(name)
        page.keyboard.press("Tab")
    assert [name for name in reached if name in CONTROLS] == CONTROLS, reached

    tab_to(page, "image")                                          # another picture, by keyboard
    page.keyboard.press("ArrowRight")
    second = after(page, first)
    said("^Image 1, awe")
    tab_to(page, "opacity")                                          # opacity, by keyboard and by mouse
    page.keyboard.press("Home")
    clear = after(page, second)
    assert page.get_by_role("slider", name="opacity").input_value() == "0"
    said("^Image 1, awe")
    box = page.get_by_role("slider", name="opacity").bounding_box()
    page.mouse.click(box["x"] + .9*box["width"], box["y"] + box["height"]/2)
    dense = after(page, clear)
    shot(page, "explore_attention")

    before = img.get_attribute("alt")                                # another reading of Eq. 1, and back
    tab_to(page, "spatial")
    page.keyboard.press("ArrowDown")
    letter = after(page, dense)
    assert page.get_by_label("spatial").input_value() == "sum" and img.get_attribute("alt") != before
    tab_to(page, "as trained")
    page.keyboard.press("Enter")
    assert after(page, letter) == dense and img.get_attribute("alt") == before
    expect(page.get_by_role("button", name="as trained")).to_be_disabled()

    tab_to(page, "outline of the true region")
    page.keyboard.press("Space")
    outlined = after(page, dense)
    tab_to(page, "grad-cam towards the reference")
    page.keyboard.press("Space")
    compared = after(page, outlined)
    said(r"Grad-cam towards image 1, awe \(cosine 1.00\): highest nowhere")      # the picture itself
    tab_to(page, "reference")
    page.keyboard.press("ArrowRight")
    compared = after(page, compared)
    said(r"Grad-cam towards image 2, contentment \(cosine -?0\.\d\d\)")
    page.get_by_label("map of every class").check()
    many = after(page, compared)
    shot(page, "explore_attention_everything")
    page.get_by_label("map of every class").uncheck()
    assert after(page, many) == compared

    upload.set_input_files(files["good"])                            # a picture from outside
    own = after(page, compared)
    said("^Your image harbour.png")
    expect(status).to_contain_text("harbour.png")
    expect(page.get_by_label("outline of the true region")).to_be_disabled()
    for file, words in (("text", "notes.png cannot be read as an image"),
                        ("large", "large.png was not taken. It has 12.0 MB")):
        upload.set_input_files(files[file])
        expect(alert).to_contain_text(words)
        assert shown(page) == own
        said("^Your image harbour.png")
    shot(page, "explore_attention_refused")
    upload.set_input_files(files["hostile"])
    hostile = after(page, own)
    said(r"^Your image \$\\frac\{<img src=x onerror='window.hacked=1'>.png\. Polarity map")
    expect(alert).to_have_count(0)
    assert page.evaluate("window.hacked") is None and page.locator("img").count() == 1
    shot(page, "explore_attention_hostile")

    tab_to(page, "image")                                          # back to the collection
    page.keyboard.press("End")
    after(page, hostile)
    said("^Image 7, sadness")


def test_chapter_runs_in_jupyterlab(page, launch, shot, tmp_path):
    from playwright.sync_api import expect
    pytest.importorskip("jupyterlab", reason="this test needs JupyterLab: pip install jupyterlab")
    shutil.copy(Path(__file__).parent.parent/"nbs"/"widgets"/"attention.ipynb", tmp_path/"chapter.ipynb")
    port = free_port()
    settings = {name: str(tmp_path/name.lower()) for name in ("JUPYTER_CONFIG_DIR", "JUPYTERLAB_SETTINGS_DIR",
                                                              "JUPYTERLAB_WORKSPACES_DIR")}
    news = (
        Path(settings["JUPYTERLAB_SETTINGS_DIR"])
        / "@jupyterlab"
        / "apputils-extension"
        / "notification.jupyterlab-settings"
    )
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false", "checkForUpdates": false}')       # or it asks, in a box over the page
    address = launch([sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}",
                      "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token=",
                      "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
                      "--LabApp.extension_manager=readonly",
                      "--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={tmp_path}"],
                     f"http://127.0.0.1:{port}/lab", env=os.environ | settings)
    page.goto(f"{address}/tree/chapter.ipynb")
    page.wait_for_function("window.jupyterapp && document.querySelector('.jp-Notebook')")
    page.wait_for_function(
        "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    )
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    img = page.locator(".widget-hbox img[alt^='Image']")
    img.wait_for(state="attached", timeout=120_000)
    img.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector(\".widget-hbox img[alt^='Image']\").naturalWidth === 900")
    expect(img).to_have_attribute("alt", re.compile("^Image 3, "), timeout=120_000)              # what the cells set
    expect(page.get_by_label("outline of the true region")).to_be_checked()
    page.get_by_label("grad-cam towards the reference").check()
    expect(img).to_have_attribute("alt", re.compile("^Image 3, .* Grad-cam towards"), timeout=120_000)
    page.wait_for_timeout(1000)
    img.click()                                                      # after the run the focus is on the last cell
    page.get_by_role("slider", name="image").focus()
    page.keyboard.press("ArrowRight")                                # JupyterLab would like to have this key for itself
    expect(img).to_have_attribute("alt", re.compile("^Image 4, "), timeout=30_000)
    before = img.get_attribute("alt")
    page.get_by_label(FOLD).check()
    expect(page.get_by_label("spatial")).to_be_visible()             # what is hidden cannot have the focus
    page.get_by_label("spatial").focus()
    page.keyboard.press("ArrowDown")
    expect(img).not_to_have_attribute("alt", before, timeout=30_000)
    shot(page, "explore_jupyterlab")
