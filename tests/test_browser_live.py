"The site's figures that move without a kernel compute what Python computes, by mouse and by keyboard, from a folder."
import dataclasses
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("anywidget", reason="the pages take their numbers from the widgets: pip install anywidget")
from apse_nb.datasets.decoding import load_images
from apse_nb.emotions import MIKELS
from apse_nb.images import center_crop
from apse_nb.metrics import MEASURES, evaluate_similarities, random_floor
from apse_nb.negatives import total_loss
from apse_nb.training import embed, load_trained
from apse_nb.widgets.circle import (
    Circle, circle_values, losses_sentence, marks, point_texts, positive_strip, strip_sentence)
from apse_nb.widgets.playground import BATCH_LOSSES, BATCHES, WITHOUT_SCALE, loss_on_batch, loss_sentence, make_batch

from conftest import free_port, on_circle

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    "A folder with these pages only."
    pytest.importorskip("math_core", reason="the site needs the packages of the extra 'dev'")
    from site_builder.live_pages import write_live_pages
    from site_builder.pages import TEMPLATES, Site
    site = Site(tmp_path_factory.mktemp("site"))
    for name in ("site.css", "site.js"):
        shutil.copy(TEMPLATES/name, site.out/name)
    write_live_pages(site)
    return site.out/"live"


@pytest.fixture
def open_page(live, page):
    "Opens a page from its folder, without a server; nothing may go wrong on it."
    errors = []
    page.on("pageerror", lambda e: errors.append(str(e)))

    def start(name: str):
        page.goto((live/f"{name}.html").as_uri())
        page.wait_for_function("window.figure")
        return page
    yield start
    assert errors == []


def close(found, wanted, where: str = "") -> None:
    "Two nested collections of numbers are equal up to 1e-6."
    if isinstance(wanted, dict):
        assert list(found) == list(wanted), where
        for key in wanted:
            close(found[key], wanted[key], f"{where}.{key}")
    elif isinstance(wanted, list | tuple | np.ndarray):
        assert len(found) == len(wanted), where
        for i, value in enumerate(wanted):
            close(found[i], value, f"{where}[{i}]")
    elif wanted is None:
        assert found is None, where
    else:
        assert math.isclose(found, wanted, abs_tol=1e-6), f"{where}: {found} on the page, {wanted} in Python"


def random_circle(rng: np.random.Generator) -> Circle:
    angles = dict(zip(("anchor", "positive", "same", "opposite"), rng.integers(0, 360, 4).tolist()))
    mine = (rng.dirichlet([1, 1, 1])[:2]).round(3).tolist()
    by_hand = [{}, {}, dict(beta=float(rng.random())), dict(lambda_0=float(rng.random()))][rng.integers(4)]
    terms = [("inter", "intra"), ("inter",), ("intra",)][rng.integers(3)]
    return Circle(**angles, negatives=int(rng.integers(1, 3)), anchor_confidences=tuple(mine), generate_in=terms,
                  negative_confidences=tuple(rng.random(2).tolist()), scale=float(rng.integers(1, 33)),
                  through_lambda=bool(rng.integers(2)), **by_hand)


def test_circle_computes_what_python_computes(open_page):
    page, rng = open_page("circle"), np.random.default_rng(0)
    circles = [Circle(), *(random_circle(rng) for _ in range(30))]
    for circle in circles:
        values, strips = page.evaluate("""circle => {
            figure.change(circle);
            return [figure.values(), ["angle", "beta", "lambda_0"].map(over => figure.strip(over))];
        }""", dataclasses.asdict(circle))
        wanted = circle_values(circle)
        close(values, wanted._asdict(), str(circle))
        for found, over in zip(strips, ("angle", "beta", "lambda_0")):
            strip = positive_strip(circle, over)
            close([found[k] for k in ("x", "before", "after", "turns", "now")],
                  [strip.x, strip.before, strip.after, strip.turns, strip.now], f"{circle}, {over}")
        lines = page.locator("#figure p[role=status]").all_inner_texts()
        assert lines == [losses_sentence(wanted), strip_sentence(circle, positive_strip(circle))]
        points = page.locator(".apse-circle [role=slider]")
        assert points.evaluate_all("nodes => nodes.map(n => n.ariaValueText)") == point_texts(circle, wanted)
        arrows = [m for m in marks(circle, wanted) if m["kind"] == "arrow"]
        assert page.locator(".apse-circle g[pointer-events] path").count() == 2*len(arrows)     # each with its head


def test_circle_by_mouse_and_keyboard(open_page, shot):
    page = open_page("circle")
    box = page.locator(".apse-circle").bounding_box()
    page.mouse.move(*on_circle(box, 110))
    page.mouse.down()
    page.mouse.move(*on_circle(box, 150), steps=4)
    page.mouse.up()
    page.keyboard.press("ArrowRight")
    circle = dataclasses.replace(Circle(), positive=149)
    close(page.evaluate("figure.values()"), circle_values(circle)._asdict())
    field = page.get_by_role("spinbutton", name="anchor as excitement")
    field.fill("0.95")
    field.press("Enter")
    assert "cannot add up to more than 1" in page.locator("p[role=alert]").inner_text()
    close(page.evaluate("figure.values()"), circle_values(circle)._asdict())       # refused: nothing has changed
    page.get_by_label("hardness").select_option("λ₀ by hand")
    page.get_by_role("spinbutton", name="λ₀").fill("0.3")
    page.keyboard.press("Enter")
    assert page.evaluate("figure.values().lambda_0") == dict(same=.3, opposite=.3)
    strip = strip_sentence(c := dataclasses.replace(circle, lambda_0=.3), positive_strip(c, "lambda_0"))
    assert page.locator("svg.strip").last.get_attribute("aria-label").endswith(strip)
    shot(page, "live_circle")
    page.get_by_role("button", name="Start again").click()
    close(page.evaluate("figure.values()"), circle_values(Circle())._asdict())


def test_playground_computes_what_python_computes(open_page, shot):
    page, rng = open_page("playground"), np.random.default_rng(1)
    states = [("trained", loss, 1.) for loss in BATCH_LOSSES]
    states += [(rng.choice(list(BATCHES)).item(), rng.choice(BATCH_LOSSES).item(), float(rng.integers(2, 33)))
               for _ in range(16)]
    for kind, loss, scale in states:
        found = page.evaluate("state => { figure.change(state); return figure.found() }",
                              dict(batch=kind, loss=loss, scale=scale))
        wanted = loss_on_batch(kind, loss, scale)
        close([found["loss"]], [wanted.loss], f"{kind}, {loss}, {scale}")
        assert np.allclose(found["gradient"], wanted.gradient, rtol=1e-6, atol=1e-9), f"{kind}, {loss}, {scale}"
        assert np.array_equal(np.sign(found["gradient"]), np.sign(wanted.gradient)), f"{kind}, {loss}, {scale}"
        assert np.allclose(found["force"], np.linalg.norm(wanted.force, axis=1), atol=1e-6), f"{kind}, {loss}, {scale}"
        assert page.locator("#figure p[role=status]").first.inner_text() == loss_sentence(kind, loss, scale)
        assert page.get_by_role("spinbutton", name="scale").is_disabled() == (loss in WITHOUT_SCALE)
    # Eq. 14, in words
    page.evaluate("figure.change({batch: 'trained', loss: 'EP', scale: 1, lambda: 0.3, anchor: 0})")
    attention = page.evaluate("JSON.parse(document.getElementById('data').textContent).batches.trained.attention")
    total = total_loss(loss_on_batch("trained", "EP").loss, attention, .3)
    assert f"in all {total:.4f} (Eq. 14)" in page.locator("#figure p[role=status]").nth(1).inner_text()
    # the anchor, by keyboard and by a click
    picker = page.get_by_role("slider", name="anchor row")
    picker.focus()
    for key in ("End", "ArrowUp", "PageUp"):
        page.keyboard.press(key)
    gradient = loss_on_batch("trained", "EP").gradient[26]
    words = f"{(gradient < 0).sum()} pulled, {(gradient > 0).sum()} pushed"
    assert picker.get_attribute("aria-valuetext") == f"row 26, {MIKELS.fine[make_batch('trained').labels[26]]}: {words}"
    page.locator(".thumbnails .picture").nth(3).click()
    assert picker.get_attribute("aria-valuenow") == "3"
    shot(page, "live_playground")


def in_python(labels: list[int], order: list[int]) -> dict:
    "The measures of one list; image 0 is the query."
    similarity = -np.arange(len(order), dtype=float)[None]
    report = evaluate_similarities(similarity, [labels[0]], [labels[i] for i in order], MIKELS)
    return {m: getattr(report, m) for m in MEASURES}


def test_ranks_compute_what_python_computes(open_page, shot):
    page, rng = open_page("ranks"), np.random.default_rng(2)
    labels = page.evaluate("JSON.parse(document.getElementById('data').textContent).labels")
    first = page.evaluate("figure.order()")
    for order in [first, *(rng.permutation(first).tolist() for _ in range(30))]:
        page.evaluate("order => figure.change(order)", order)
        close(page.evaluate("figure.values()"), in_python(labels, order), str(order))
    close(page.evaluate("figure.floor"), random_floor(labels[:1], labels[1:], MIKELS))
    assert page.evaluate("figure.best.anmrr") == 0 and page.evaluate("figure.best.map8") == 1
    # by mouse: the tile at rank 9 onto rank 2
    page.get_by_role("button", name="as the network ranks them").click()
    tiles = page.locator(".tile")
    start, end = (tiles.nth(k).bounding_box() for k in (8, 1))
    for box, press in ((start, page.mouse.down), (end, page.mouse.up)):
        page.mouse.move(box["x"] + box["width"]/2, box["y"] + box["height"]/3, steps=5)
        press()
    wanted = [first[0], first[8], *first[1:8], *first[9:]]
    assert page.evaluate("figure.order()") == wanted
    told, values = page.locator("#figure p[role=status]").inner_text(), in_python(labels, wanted)
    assert "from rank 9 to 2" in told and f"mAP8 {in_python(labels, first)['map8']:.3f} → {values['map8']:.3f}" in told
    shown = dict(zip(page.locator(".measures tbody th").all_inner_texts(),
                     page.locator(".measures tbody td:nth-child(2)").all_inner_texts()))
    assert shown["mAP2"] == f"{values['map2']:.3f}" and shown["ANMRR"] == f"{values['anmrr']:.3f}"
    # by keyboard: walk two to the right, carry one to the left, then to the end
    tiles.nth(0).focus()
    for key in ("ArrowRight", "ArrowRight", "Shift+ArrowLeft", "Shift+End"):
        page.keyboard.press(key)
    assert page.evaluate("figure.order()") == [first[0], *wanted[1:2], *wanted[3:], wanted[2]]
    assert page.evaluate("document.activeElement.getAttribute('aria-label')").startswith("rank 24: ")
    shot(page, "live_ranks")


@pytest.fixture
def open_network(live, page, launch):
    "Serves the folder, as the page says one should, and waits for the first answer."
    if missing := sys.modules["site_builder.live_data"].what_is_missing():
        pytest.skip(f"the network is not in the page. {missing}")
    port = free_port()
    address = launch([sys.executable, "-m", "http.server", str(port), "--directory", str(live.parent)],
                     f"http://127.0.0.1:{port}/site.css")
    errors = []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.goto(address.replace("site.css", "live/network.html"))
    page.wait_for_function("window.figure")
    yield page
    assert errors == []


def test_network_computes_what_python_computes(open_network, shot):
    page = open_network
    model, recipe = load_trained("scenes")
    scenes = load_images("scenes", recipe.resize, "test", limit=208)
    crop = recipe.crop
    gallery = embed(model, scenes.subset(np.arange(8, 208)), crop=crop).embeddings.numpy()
    for k in (0, 3, 6):
        page.evaluate("k => figure.choose(k)", k)
        found = {name: np.array(v["numbers"]) for name, v in page.evaluate("figure.values()").items()}
        with torch.no_grad():
            wanted = model.eval()(center_crop(scenes.pixels[k:k + 1], crop))
        assert np.allclose(found["embedding"], wanted.embedding[0], atol=1e-3)
        for name, head in (("low", wanted.low), ("high", wanted.high)):
            for part, values in (("class_maps", head.class_maps), ("attention", head.attention),
                                 ("probabilities", head.confidences)):
                assert np.allclose(found[f"{name}_{part}"], values.flatten(), atol=1e-3), f"{k}: {name} {part}"
        cosines = gallery @ wanted.embedding[0].numpy()
        near = page.evaluate("figure.near()")
        assert np.allclose([n["cosine"] for n in near[:8]], np.sort(cosines)[::-1][:8], atol=1e-3)
        emotion = MIKELS.fine[wanted.high.scores.argmax()]
        assert f"the emotion head says {emotion} " in page.locator("#figure p[role=status]").inner_text()
    shot(page, "live_network")


def test_network_sees_a_drawing_and_a_file(open_network, tmp_path):
    page, told = open_network, open_network.locator("#figure p:is([role=status], [role=alert])")
    before = page.evaluate("figure.values().embedding.numbers")
    box = page.locator("canvas.easel").bounding_box()
    page.mouse.move(box["x"] + 20, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 90, steps=3)
    page.mouse.up()
    told.filter(has_text="Your drawing: ").wait_for()
    assert not np.allclose(page.evaluate("figure.values().embedding.numbers"), before, atol=1e-3)
    Image.new("RGB", (300, 200), "teal").save(tmp_path/"teal.png")
    page.locator("input[type=file]").set_input_files(tmp_path/"teal.png")
    told.filter(has_text="teal.png: ").wait_for()
    (tmp_path/"text.png").write_text("no image")
    page.locator("input[type=file]").set_input_files(tmp_path/"text.png")
    told.filter(has_text="text.png could not be read as an image").wait_for()
    for width in (1280, 800, 390):
        page.set_viewport_size(dict(width=width, height=900))
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_network_says_what_it_lacks(live, page, tmp_path, monkeypatch):
    data = sys.modules["site_builder.live_data"]
    complaint = page.locator("#figure p[role=alert]")
    page.goto((live/"network.html").as_uri())
    if data.what_is_missing():
        assert "npm install" in complaint.inner_text() or "pip install onnx" in complaint.inner_text()
    else:
        assert "python -m http.server --directory _docs" in complaint.inner_text()
        page.add_init_script("delete globalThis.WebAssembly")
        page.goto((live/"network.html").as_uri())
        assert "no WebAssembly" in complaint.inner_text()
    monkeypatch.setattr(data, "RUNTIME", tmp_path)
    assert "npm install --no-save onnxruntime-web" in data.network_data(tmp_path)["missing"]


@pytest.mark.parametrize("name", ("circle", "playground", "ranks"))
def test_pages_fit_and_say_what_they_show(open_page, name):
    page = open_page(name)
    for width in (1280, 800, 390):
        page.set_viewport_size(dict(width=width, height=900))
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        assert page.evaluate("getComputedStyle(document.querySelector('#figure')).backgroundColor") == (
            "rgb(255, 255, 255)" if theme == "light" else "rgb(26, 29, 33)")
    assert page.locator("#figure svg[role=img]:not([aria-label])").count() == 0
    nameless = page.evaluate("""() => [...document.querySelectorAll(
        '#figure :is(button, input, select, [role=slider])')]
        .filter(n => !(n.ariaLabel || n.textContent.trim() || n.labels?.length)).length""")
    assert nameless == 0
