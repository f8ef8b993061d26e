"The retrieval browser and the embedding map in a real browser (the notebook `widgets/browser` and `widgets/map`)."
import re

import numpy as np
import pytest

pytest.importorskip("anywidget", reason="the widgets need anywidget: pip install anywidget")
expect = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright").expect
from apse_nb.tools.embedding_map import flatten
from apse_nb.widgets.collection import Filter, failure_cases, nearest_images
from apse_nb.widgets.map import on_canvas

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


class Browser:
    "The first browser of the page, with its map."

    def __init__(self, page, known):
        self.page, self.known = page, known
        self.grid = page.get_by_role("group", name="results, most similar first").first
        self.canvas, self.card = page.locator(".apse-map > canvas").first, page.locator(".apse-card").first
        self.query = page.locator('img[alt^="query: "]').first
        self.tiles = self.grid.locator(".apse-tile")

    def shows(self, query: int, allowed=None) -> list[int]:
        "Wait until this is the query; results, frames, words and marks on the map must be what the library says."
        known, grid = self.known, self.grid
        found, _ = nearest_images(known, query, 12, allowed)
        text = " ".join(map(str, found))
        self.page.wait_for_function("([g, want]) => [...g.children].map(b => b.dataset.id).join(' ') === want",
                                    arg=[grid.element_handle(), text])
        expect(self.canvas).to_have_attribute("data-query", str(query))
        expect(self.canvas).to_have_attribute("data-results", text)
        expect(self.query).to_have_attribute("alt", "query: " + known.words(query))
        # a hostile name too, letter by letter
        expect(self.page.get_by_text("Query: " + known.names[query], exact=False).first).to_be_visible()
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

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)


class Places:
    "Where the points of the first browser's map lie."

    def __init__(self, browser: Browser):
        flat = np.frombuffer(on_canvas(flatten(browser.known.embeddings, "pca")[0]), np.float32)
        self.places = flat.reshape(-1, 2).astype(float)
        # as in the widget's JavaScript, and its border
        scale = (browser.canvas.bounding_box()["width"] - 2)/620
        self.pixels = scale*np.stack([310 + self.places[:, 0]*432, 230 - self.places[:, 1]*432], 1) + 1
        self.apart = np.sqrt(((self.pixels[:, None] - self.pixels[None])**2).sum(-1)) + 1e9*np.eye(len(flat)//2)

    def of(self, i: int) -> dict[str, float]:
        "In the canvas, for the mouse."
        return dict(x=self.pixels[i][0], y=self.pixels[i][1])


def click_results(browser: Browser, shot) -> list[int]:
    "A click makes a result the query, Back undoes it. The results of image 0."
    first = browser.shows(0)
    assert len(first) == 12 and any(HOSTILE in browser.known.names[i] for i in first)
    shot(browser.page, "12b_start")
    before = browser.query.get_attribute("src")
    browser.tiles.nth(2).click()
    second = browser.shows(first[2])
    assert browser.query.get_attribute("src") != before
    browser.tiles.nth(11).click()
    browser.shows(second[11])
    back = browser.page.get_by_role("button", name="Back").first
    back.click()
    browser.shows(first[2])
    back.click()
    browser.shows(0)
    expect(back).to_be_disabled()
    return first


def choose_a_result_by_keyboard(browser: Browser, first: list[int]) -> int:
    "One stop for Tab, arrows walk, Enter chooses, the focus stays in the grid. The new query."
    page = browser.page
    browser.tiles.first.focus()
    browser.press("ArrowRight", "ArrowDown", "ArrowLeft", "End", "ArrowRight", "Home", "ArrowLeft", "ArrowRight")
    assert page.evaluate("Number(document.activeElement.dataset.id)") == first[1]
    assert browser.grid.locator('.apse-tile[tabindex="0"]').count() == 1
    browser.press("Enter")
    second = browser.shows(first[1])
    assert page.evaluate("Number(document.activeElement.dataset.id)") == second[0]
    return first[1]


def filter_results(browser: Browser, query: int, shot) -> None:
    "Everything shown satisfies the filters."
    page, known = browser.page, browser.known
    page.get_by_role("button", name="Options").first.click()
    emotion, polarity = page.get_by_label("emotion").first, page.get_by_label("polarity").first
    emotion.select_option("fear")
    browser.shows(query, Filter("fear").allowed(known))
    assert all("guess: fear" in alt for alt in alts(browser.grid))
    emotion.select_option("any")
    polarity.select_option("positive")
    browser.shows(query, Filter(polarity="positive").allowed(known))
    slider = page.get_by_role("slider", name="confidence").first
    slider.focus()
    for _ in range(14):
        slider.press("ArrowRight")
    browser.shows(query, Filter(polarity="positive", confidence=.7).allowed(known))
    for alt in alts(browser.grid):
        guess, percent = re.search(r"guess: (\w+) (\d+)%", alt).groups()
        assert guess in known.taxonomy.fine[:4] and int(percent) >= 70
    shot(page, "12b_filter")
    emotion.select_option("fear")
    expect(browser.tiles).to_have_count(0)
    expect(page.get_by_text("No image passes the filters: open one of them.").first).to_be_visible()
    emotion.select_option("any")
    polarity.select_option("any")
    slider.focus()
    slider.press("Home")
    browser.shows(query)
    expect(emotion.locator("option:checked")).to_have_text("any")


def look_at_failures(browser: Browser, shot) -> int:
    "The most wrong first; a click makes one the query, which is returned."
    page, table = browser.page, failure_cases(browser.known)
    page.get_by_role("button", name="Show failures").first.click()
    failures = page.get_by_role("group", name="failures, the most wrong first").first
    expect(failures.locator(".apse-tile")).to_have_count(12)
    assert ids(failures) == table.index[:12].tolist()
    wrong = [float(re.match(r"([.\d]+) wrong", alt).group(1)) for alt in alts(failures)]
    assert wrong == sorted(wrong, reverse=True) == [round(w, 2) for w in table["how wrong"][:12]]
    failures.locator(".apse-tile").first.click()
    worst = int(table.index[0])
    browser.shows(worst)
    failures.scroll_into_view_if_needed()
    shot(page, "12b_failures")
    page.get_by_role("button", name="Hide failures").first.click()
    expect(failures).to_be_hidden()
    return worst


def hover_over_the_map(browser: Browser, map_: Places, query: int, shot) -> int:
    "The image under the pointer is shown, and a click makes it the query, which is returned."
    canvas, image = browser.canvas, browser.card.locator("img")
    lonely = [int(i) for i in np.argsort(-map_.apart.min(1)) if i != query][:2]  # points that no other one is near
    sources = []
    canvas.scroll_into_view_if_needed()
    for i in lonely:
        canvas.hover(position=map_.of(i))
        expect(canvas).to_have_attribute("data-current", str(i))
        expect(image).to_have_attribute("alt", browser.known.words(i))
        expect(browser.card).to_be_visible()
        sources.append(image.get_attribute("src"))
        assert sources[-1] == browser.known.source(i) and image.evaluate("i => i.naturalWidth") > 50
    assert sources[0] != sources[1]
    shot(browser.page, "12b_map_hover")
    canvas.click(position=map_.of(lonely[1]))
    browser.shows(lonely[1])
    browser.page.mouse.move(5, 5)
    expect(browser.card).to_be_hidden()
    return lonely[1]


def walk_over_the_map(browser: Browser, map_: Places, query: int, shot) -> None:
    "The same with the keyboard."
    page, canvas, card, places = browser.page, browser.canvas, browser.card, map_.places
    canvas.focus()
    browser.press("ArrowLeft")  # the first arrow shows where we are
    expect(canvas).to_have_attribute("data-current", str(query))
    arrow, sign = ("ArrowLeft", -1) if places[query, 0] > 0 else ("ArrowRight", 1)
    browser.press(arrow)
    page.wait_for_function("([c, i]) => c.dataset.current !== i", arg=[canvas.element_handle(), str(query)])
    there = int(canvas.get_attribute("data-current"))
    ahead = sign*(places[:, 0] - places[query, 0])
    cone = (ahead > 0) & (np.abs(places[:, 1] - places[query, 1]) <= ahead)
    assert there == np.where(cone, map_.apart[query], np.inf).argmin()  # the nearest point in that direction
    expect(card.locator("img")).to_have_attribute("alt", browser.known.words(there))
    expect(page.locator(".apse-spoken").first).to_have_text(browser.known.words(there))
    browser.press("+", "+", "+")
    shot(page, "12b_map_zoomed")
    browser.press("0", "Escape")
    expect(card).to_be_hidden()
    browser.press("ArrowLeft", arrow, "Enter")
    browser.shows(there)


def read_a_hostile_name(browser: Browser, map_: Places) -> None:
    "Names are text, wherever they appear."
    hostile = next(i for i in range(0, 120, 3) if (map_.apart[i] > 3).all())
    browser.canvas.hover(position=map_.of(hostile))
    expect(browser.card.locator("img")).to_have_attribute("alt", browser.known.words(hostile))
    assert browser.page.locator('img[src="x"]').count() == 0 and browser.page.evaluate("window.hacked") is None


def look_at_own_images(page, shot) -> None:
    "The second browser: no labels, no emotion head, a file that has vanished."
    own = page.get_by_role("group", name="results, most similar first").nth(1)
    expect(own.locator(".apse-tile")).to_have_count(19)
    assert own.locator(".apse-sign").count() == 0
    wanted = [f"image {i}" + "; the image cannot be read any more"*(i == 3) for i in range(20) if i != 2]
    assert sorted(alt.split("; ", 1)[1] for alt in alts(own)) == sorted(wanted)
    page.get_by_role("button", name="Options", exact=True).first.click()          # the first browser's are open
    for control in (page.get_by_label("emotion"), page.get_by_role("slider", name="confidence"),
                    page.get_by_role("button", name="Show failures")):
        expect(control.nth(1)).to_be_disabled()
    own.locator(".apse-tile").first.click()
    expect(page.locator(".apse-map > canvas").nth(1)).not_to_have_attribute("data-query", "2")
    own.scroll_into_view_if_needed()
    shot(page, "12b_unlabelled")


def test_browser_and_map(page, serve, shot, known):
    expect.set_options(timeout=30_000)
    page.goto(serve(COLLECTION, 'linked(collection, query=0, method="pca")', UNLABELLED))
    browser = Browser(page, known)
    first = click_results(browser, shot)
    query = choose_a_result_by_keyboard(browser, first)
    filter_results(browser, query, shot)
    worst = look_at_failures(browser, shot)
    map_ = Places(browser)
    query = hover_over_the_map(browser, map_, worst, shot)
    walk_over_the_map(browser, map_, query, shot)
    read_a_hostile_name(browser, map_)
    look_at_own_images(page, shot)
