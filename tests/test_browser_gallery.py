"The retrieval browser and the embedding map in a real browser (the notebook `widgets/browser` and `widgets/map`)."
import re

import numpy as np
import pytest

HOSTILE = "<img src=x onerror=window.hacked=1>"
COLLECTION = f"""
import numpy as np
from ipywidgets import HBox
from apse_nb.search.encoder import load_encoder
from apse_nb.widgets.collection import Collection
from apse_nb.widgets.browser import RetrievalBrowser
from apse_nb.widgets.map import EmbeddingMap
from apse_nb.datasets.decoding import load_images
images = load_images("scenes", 96, "test", limit=120)
images.names[::3] = [f"{{i}}{HOSTILE}\\n.png" for i in range(0, 120, 3)]
collection = Collection.from_images(images, load_encoder("scenes"))
def linked(collection, query, k=12, **of_map):
    points, browser = EmbeddingMap(collection, **of_map), RetrievalBrowser(collection, query, k)
    points.link(browser)
    browser.layout.flex = "1 1 420px"
    return HBox([points, browser], layout=dict(flex_flow="row wrap", grid_gap="12px"))
"""
UNLABELLED = """
def thumbnail(i):
    if i == 3: raise OSError("gone")
    return images.pixels[i]
linked(Collection(collection.embeddings[:20], thumbnail, images.taxonomy), query=2, k=30,
       flat=np.arange(40).reshape(20, 2))
"""


@pytest.fixture(scope="module")
def known():
    "The same collection in this process: what the page should show."
    names = {}
    exec(COLLECTION, names)
    return names["collection"]


def ids(grid) -> list[int]:
    return [int(i) for i in grid.locator(".apse-tile").evaluate_all("all => all.map(b => b.dataset.id)")]


def alts(grid) -> list[str]:
    return grid.locator("img").evaluate_all("all => all.map(i => i.alt)")


def test_browser_and_map(page, serve, shot, known):
    from playwright.sync_api import expect

    from apse_nb.widgets.collection import Filter, failure_cases, nearest_images
    from apse_nb.widgets.map import on_canvas
    from apse_nb.tools.embedding_map import flatten
    expect.set_options(timeout=30_000)
    page.goto(serve(COLLECTION, 'linked(collection, query=0, method="pca")', UNLABELLED))
    grid = page.get_by_role("group", name="results, most similar first").first
    canvas, card = page.locator(".apse-map > canvas").first, page.locator(".apse-card").first
    picture = page.locator('img[alt^="query: "]').first

    def shows(query: int, allowed=None) -> list[int]:
        "Wait until this is the query; results, frames, words and marks on the map must be what the library says."
        found, _ = nearest_images(known, query, 12, allowed)
        text = " ".join(map(str, found))
        page.wait_for_function("([g, want]) => [...g.children].map(b => b.dataset.id).join(' ') === want",
                               arg=[grid.element_handle(), text])
        expect(canvas).to_have_attribute("data-query", str(query))
        expect(canvas).to_have_attribute("data-results", text)
        expect(picture).to_have_attribute("alt", "query: " + known.words(query))
        # a hostile name too, letter by letter
        expect(page.get_by_text("Query: " + known.names[query], exact=False).first).to_be_visible()
        tiers = [0 if known.labels[i] == known.labels[query] else 1 if known.taxonomy.parent[known.labels[i]]
                 == known.taxonomy.parent[known.labels[query]] else 2 for i in found]
        frames = grid.locator(".apse-frame").evaluate_all("all => all.map(f => "
                                                          "f.querySelector('.apse-sign').textContent + "
                                                          "getComputedStyle(f).borderTopStyle + "
                                                          "getComputedStyle(f).borderTopColor)")
        assert frames == [("✓solidrgb(0, 68, 136)", "≈dashedrgb(221, 170, 51)", "✗dottedrgb(187, 85, 102)")[t]
                          for t in tiers]
        assert all(known.words(i) in alt and ("right", "only the polarity is right", "wrong polarity")[t] in alt
                   for i, t, alt in zip(found, tiers, alts(grid)))
        return found.tolist()

    # a click makes a result the query, Back undoes it
    first = shows(0)
    assert len(first) == 12 and any(HOSTILE in known.names[i] for i in first)
    shot(page, "12b_start")
    before = picture.get_attribute("src")
    grid.locator(".apse-tile").nth(2).click()
    second = shows(first[2])
    assert picture.get_attribute("src") != before
    grid.locator(".apse-tile").nth(11).click()
    shows(second[11])
    back = page.get_by_role("button", name="Back").first
    back.click()
    shows(first[2])
    back.click()
    shows(0)
    expect(back).to_be_disabled()

    # the same with the keyboard: one stop for Tab, arrows walk, Enter chooses, the focus stays in the grid
    grid.locator(".apse-tile").first.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "End", "ArrowRight", "Home", "ArrowLeft", "ArrowRight"):
        page.keyboard.press(key)
    assert page.evaluate("Number(document.activeElement.dataset.id)") == first[1]
    assert grid.locator('.apse-tile[tabindex="0"]').count() == 1
    page.keyboard.press("Enter")
    query = first[1]
    second = shows(query)
    assert page.evaluate("Number(document.activeElement.dataset.id)") == second[0]

    # filters: everything shown satisfies them
    page.get_by_role("button", name="Options").first.click()
    emotion, polarity = page.get_by_label("emotion").first, page.get_by_label("polarity").first
    emotion.select_option("fear")
    shows(query, Filter("fear").allowed(known))
    assert all("guess: fear" in alt for alt in alts(grid))
    emotion.select_option("any")
    polarity.select_option("positive")
    shows(query, Filter(polarity="positive").allowed(known))
    slider = page.get_by_role("slider", name="confidence").first
    slider.focus()
    for _ in range(14):
        slider.press("ArrowRight")
    shows(query, Filter(polarity="positive", confidence=.7).allowed(known))
    for alt in alts(grid):
        guess, percent = re.search(r"guess: (\w+) (\d+)%", alt).groups()
        assert guess in known.taxonomy.fine[:4] and int(percent) >= 70
    shot(page, "12b_filter")
    emotion.select_option("fear")
    expect(grid.locator(".apse-tile")).to_have_count(0)
    expect(page.get_by_text("No image passes the filters: open one of them.").first).to_be_visible()
    emotion.select_option("any")
    polarity.select_option("any")
    slider.focus()
    slider.press("Home")
    shows(query)
    expect(emotion.locator("option:checked")).to_have_text("any")

    # failures, the most wrong first
    page.get_by_role("button", name="Show failures").first.click()
    failures = page.get_by_role("group", name="failures, the most wrong first").first
    expect(failures.locator(".apse-tile")).to_have_count(12)
    table = failure_cases(known)
    assert ids(failures) == table.index[:12].tolist()
    wrong = [float(re.match(r"([.\d]+) wrong", alt).group(1)) for alt in alts(failures)]
    assert wrong == sorted(wrong, reverse=True) == [round(w, 2) for w in table["how wrong"][:12]]
    failures.locator(".apse-tile").first.click()
    worst = int(table.index[0])
    shows(worst)
    failures.scroll_into_view_if_needed()
    shot(page, "12b_failures")
    page.get_by_role("button", name="Hide failures").first.click()
    expect(failures).to_be_hidden()

    # the map: hover shows the picture under the pointer
    places = np.frombuffer(on_canvas(flatten(known.embeddings, "pca")[0]), np.float32).reshape(-1, 2).astype(float)
    # as in the widget's JavaScript, and its border
    scale = (canvas.bounding_box()["width"] - 2)/620
    pixels = scale*np.stack([310 + places[:, 0]*432, 230 - places[:, 1]*432], 1) + 1
    apart = np.sqrt(((pixels[:, None] - pixels[None])**2).sum(-1)) + 1e9*np.eye(len(pixels))
    lonely = [int(i) for i in np.argsort(-apart.min(1)) if i != worst][:2]  # points that no other one is near
    sources = []
    canvas.scroll_into_view_if_needed()
    for i in lonely:
        canvas.hover(position=dict(x=pixels[i][0], y=pixels[i][1]))
        expect(canvas).to_have_attribute("data-current", str(i))
        expect(card.locator("img")).to_have_attribute("alt", known.words(i))
        expect(card).to_be_visible()
        sources.append(card.locator("img").get_attribute("src"))
        assert sources[-1] == known.source(i) and card.locator("img").evaluate("i => i.naturalWidth") > 50
    assert sources[0] != sources[1]
    shot(page, "12b_map_hover")

    # a click on a point makes it the query
    canvas.click(position=dict(x=pixels[lonely[1]][0], y=pixels[lonely[1]][1]))
    shows(lonely[1])
    page.mouse.move(5, 5)
    expect(card).to_be_hidden()

    # the same with the keyboard
    canvas.focus()
    page.keyboard.press("ArrowLeft")  # the first arrow shows where we are
    expect(canvas).to_have_attribute("data-current", str(lonely[1]))
    arrow, sign = ("ArrowLeft", -1) if places[lonely[1], 0] > 0 else ("ArrowRight", 1)
    page.keyboard.press(arrow)
    page.wait_for_function("([c, i]) => c.dataset.current !== i", arg=[canvas.element_handle(), str(lonely[1])])
    there = int(canvas.get_attribute("data-current"))
    ahead = sign*(places[:, 0] - places[lonely[1], 0])
    cone = (ahead > 0) & (np.abs(places[:, 1] - places[lonely[1], 1]) <= ahead)
    assert there == np.where(cone, apart[lonely[1]], np.inf).argmin()  # the nearest point in that direction
    expect(card.locator("img")).to_have_attribute("alt", known.words(there))
    expect(page.locator(".apse-spoken").first).to_have_text(known.words(there))
    for _ in range(3):
        page.keyboard.press("+")
    shot(page, "12b_map_zoomed")
    page.keyboard.press("0")
    page.keyboard.press("Escape")
    expect(card).to_be_hidden()
    for key in ("ArrowLeft", arrow, "Enter"):
        page.keyboard.press(key)
    shows(there)

    # names are text, wherever they appear
    hostile = next(i for i in range(0, 120, 3) if (apart[i] > 3).all())
    canvas.hover(position=dict(x=pixels[hostile][0], y=pixels[hostile][1]))
    expect(card.locator("img")).to_have_attribute("alt", known.words(hostile))
    assert page.locator('img[src="x"]').count() == 0 and page.evaluate("window.hacked") is None

    # own pictures: no labels, no emotion head, a file that has vanished
    own = page.get_by_role("group", name="results, most similar first").nth(1)
    expect(own.locator(".apse-tile")).to_have_count(19)
    assert own.locator(".apse-sign").count() == 0
    assert sorted(alt.split("; ", 1)[1] for alt in alts(own)) == sorted(f"image {i}" + "; the image cannot be "
                                                                        "read any more"*(i == 3) for i in range(20)
                                                                        if i != 2)
    page.get_by_role("button", name="Options", exact=True).first.click()          # the first browser's are open
    for control in (page.get_by_label("emotion"), page.get_by_role("slider", name="confidence"),
                    page.get_by_role("button", name="Show failures")):
        expect(control.nth(1)).to_be_disabled()
    own.locator(".apse-tile").first.click()
    expect(page.locator(".apse-map > canvas").nth(1)).not_to_have_attribute("data-query", "2")
    own.scroll_into_view_if_needed()
    shot(page, "12b_unlabelled")
