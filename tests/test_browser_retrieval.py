"The result page in a real browser: pictures, names, keyboard, both colour schemes."
import os

import pytest
from click.testing import CliRunner
from PIL import Image

from apse_nb.search.commands import apse_search
from apse_nb.search.gallery import Gallery
from apse_nb.tools.files import one_line
from apse_nb.scenes import make_scenes

NAMES = ["<img src=x onerror=document.title='hacked'>.png", "\" onload=\"document.title='hacked'.png",
         "two\nlines.png", "画像 ñ.png", "plain.png", os.fsdecode(b"caf\xe9.png")]


@pytest.fixture
def result(tmp_path):
    root = tmp_path/"pictures"
    root.mkdir()
    for pixels, name in zip(make_scenes(6, size=96, seed=3, workers=1).pixels, NAMES):
        Image.fromarray(pixels).resize((192, 144)).save(root/name, "PNG")
    with Gallery.create(root) as gallery:
        gallery.update()
    done = CliRunner().invoke(apse_search, [str(root/NAMES[0]), "--folder", str(root), "--html",
                                            str(tmp_path/"out.html")])
    assert done.exit_code == 0, done.output
    return root, tmp_path/"out.html"


def test_result_page(page, shot, result):
    root, path = result
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(path.as_uri())
    # shown as text, not run
    assert page.title().startswith("<img src=x onerror") and page.locator("script").count() == 0
    assert page.locator("h1").inner_text() == f"Images that feel like {one_line(NAMES[0])}"

    pictures = page.locator("img")
    assert pictures.count() == 6 and page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0 "
                                                   "&& i.src.startsWith('data:image/jpeg'))")
    alts = page.evaluate("[...document.images].map(i => i.alt)")
    assert alts[0] == f"The query image, {one_line(NAMES[0])}" and all(
        a.startswith(f"Result {i}: ") and "probably" in a for i, a in enumerate(alts[1:], 1)
    )
    shown = page.locator("h2").all_inner_texts()
    # every name in full, the query's own left out
    assert sorted(t.split(". ", 1)[1] for t in shown) == sorted(one_line(n) for n in NAMES[1:])

    def focused():
        return page.evaluate("(e => e.className || e.tagName.toLowerCase())(document.activeElement)")
    order = []
    for _ in range(6):
        page.keyboard.press("Tab")
        order.append(focused())
    assert order == ["skip", "image", "summary", "image", "summary", "image"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")  # opens the second result's command
    page.keyboard.press("Tab")
    assert focused() == "code" and page.evaluate("document.activeElement.innerText").startswith(f"apse_search "
            f"--folder {root}")
    page.locator("details[open] code").click()
    # one click selects it all
    assert page.evaluate("getSelection().toString()").strip() == page.locator("details[open] code").inner_text().strip()
    shot(page, "retrieval")

    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(dict(width=420, height=900))
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 27)"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # nothing sticks out on a telephone
    shot(page, "retrieval_dark_narrow")
    assert not errors, errors


def test_the_copied_command_works(page, result):
    "What the page offers to copy finds pictures when it is run, even for a name with a line break."
    import subprocess
    root, path = result
    page.goto(path.as_uri())
    card = page.locator("li", has=page.locator("h2", has_text="two\\nlines"))
    card.locator("summary").click()
    words = subprocess.run(["bash", "-c", f"printf '%s\\0' {card.locator('code').inner_text()}"],
                           capture_output=True, check=True).stdout.split(b"\0")[1:-1]
    again = CliRunner().invoke(apse_search, [os.fsdecode(w) for w in words])
    assert again.exit_code == 0 and again.stdout.count(".png") == 5, again.output
