"""Chapter 12 in a real browser: the attention explorer in Voila by keyboard and mouse, hostile uploads, and a smoke
test in JupyterLab."""
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from conftest import free_port

try:
    from playwright.sync_api import expect
except ImportError:          # the tests of a browser are skipped then
    expect = None

WIDGET = """
from apse_nb.widgets.attention import AttentionExplorer
from apse_nb.scenes import make_scenes
from apse_nb.training import load_trained

model, recipe = load_trained("scenes")
AttentionExplorer(model, make_scenes(8, seed=1), recipe.crop)
"""
FOLD = "advanced: variants of Eq. 1-2"
CONTROLS = ["image", "upload an image", "opacity", "outline of the true region", "map of every class",
            "grad-cam towards the reference", "spatial", "rescale by h·w", "norm"]


def shown(page) -> str:
    "The pixels of the image on the page, as a data address."
    return page.locator("img[alt]").evaluate("""(img) => {
        const canvas = document.createElement("canvas");
        canvas.width = img.naturalWidth; canvas.height = img.naturalHeight;
        if (canvas.width) canvas.getContext("2d").drawImage(img, 0, 0);
        return canvas.toDataURL(); }""")


def after(page, old: str) -> str:
    "The pixels of the image as soon as they differ from the old ones and stay."
    new = old
    for _ in range(150):
        page.wait_for_timeout(200)
        last, new = new, shown(page)
        if new == last != old:
            return new
    raise AssertionError("the image did not change")


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
    """An image, a text that calls itself one, a file that is too large, and an image whose name is HTML and
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


def say(page, words: str) -> None:
    "The description of the image reads so (a regular expression)."
    expect(page.locator("img[alt]")).to_have_attribute("alt", re.compile(words))


def press_on(page, control: str, key: str, before: str) -> str:
    "A key on a control that Tab leads to; the image changes."
    tab_to(page, control)
    page.keyboard.press(key)
    return after(page, before)


def walk_through_the_controls(page) -> None:
    "Those of Eq. 1 and 2 are folded away, until they are asked for by keyboard; Tab reaches all in their order."
    expect(page.get_by_label("spatial")).to_be_hidden()
    tab_to(page, FOLD)
    page.keyboard.press("Space")
    expect(page.get_by_label("spatial")).to_be_visible()
    page.get_by_role("slider", name="image").focus()
    reached = []
    for _ in range(25):
        if (name := focused(page)) and name not in reached:
            reached.append(name)
        page.keyboard.press("Tab")
    assert [name for name in reached if name in CONTROLS] == CONTROLS, reached


def change_image_and_opacity(page, first: str, shot) -> str:
    "By keyboard, the opacity by mouse too."
    second = press_on(page, "image", "ArrowRight", first)
    say(page, "^Image 1, awe")
    clear = press_on(page, "opacity", "Home", second)
    opacity = page.get_by_role("slider", name="opacity")
    assert opacity.input_value() == "0"
    say(page, "^Image 1, awe")
    box = opacity.bounding_box()
    page.mouse.click(box["x"] + .9*box["width"], box["y"] + box["height"]/2)
    dense = after(page, clear)
    shot(page, "explore_attention")
    return dense


def read_eq_1_otherwise(page, dense: str) -> None:
    "And back."
    before = page.locator("img[alt]").get_attribute("alt")
    letter = press_on(page, "spatial", "ArrowDown", dense)
    assert page.get_by_label("spatial").input_value() == "sum"
    assert page.locator("img[alt]").get_attribute("alt") != before
    assert press_on(page, "as trained", "Enter", letter) == dense
    assert page.locator("img[alt]").get_attribute("alt") == before
    expect(page.get_by_role("button", name="as trained")).to_be_disabled()


def compare_with_grad_cam(page, dense: str, shot) -> str:
    "The true region's outline, grad-cam towards this image and another one, the map of every class."
    outlined = press_on(page, "outline of the true region", "Space", dense)
    compared = press_on(page, "grad-cam towards the reference", "Space", outlined)
    say(page, r"Grad-cam towards image 1, awe \(cosine 1.00\): highest nowhere")      # the image itself
    compared = press_on(page, "reference", "ArrowRight", compared)
    say(page, r"Grad-cam towards image 2, contentment \(cosine -?0\.\d\d\)")
    page.get_by_label("map of every class").check()
    many = after(page, compared)
    shot(page, "explore_attention_everything")
    page.get_by_label("map of every class").uncheck()
    assert after(page, many) == compared
    return compared


def upload_images(page, files, before: str, shot) -> str:
    "One from outside, two that are refused, one with a hostile name."
    status, alert, upload = page.get_by_role("status"), page.get_by_role("alert"), page.get_by_label("upload an image")
    upload.set_input_files(files["good"])
    own = after(page, before)
    say(page, "^Your image harbour.png")
    expect(status).to_contain_text("harbour.png")
    expect(page.get_by_label("outline of the true region")).to_be_disabled()
    for file, words in (("text", "notes.png cannot be read as an image"),
                        ("large", "large.png was not taken. It has 12.0 MB")):
        upload.set_input_files(files[file])
        expect(alert).to_contain_text(words)
        assert shown(page) == own
        say(page, "^Your image harbour.png")
    shot(page, "explore_attention_refused")
    upload.set_input_files(files["hostile"])
    hostile = after(page, own)
    say(page, r"^Your image \$\\frac\{<img src=x onerror='window.hacked=1'>.png\. Polarity map")
    expect(alert).to_have_count(0)
    assert page.evaluate("window.hacked") is None and page.locator("img").count() == 1
    shot(page, "explore_attention_hostile")
    return hostile


def test_attention_explorer_in_voila(page, serve, shot, files):
    page.goto(serve(WIDGET))
    expect(page.get_by_role("status")).to_contain_text("of it inside")
    say(page, r"^Image 0, amusement\. Polarity map: (posi|nega)tive \d+ % .*, highest .*Emotion map: \w+ \d+ % and \w+ "
        r"\d+ %, highest ")
    first = shown(page)
    walk_through_the_controls(page)
    dense = change_image_and_opacity(page, first, shot)
    read_eq_1_otherwise(page, dense)
    compared = compare_with_grad_cam(page, dense, shot)
    hostile = upload_images(page, files, compared, shot)
    press_on(page, "image", "End", hostile)                            # back to the collection
    say(page, "^Image 7, sadness")


def test_chapter_runs_in_jupyterlab(page, launch, shot, tmp_path):
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
