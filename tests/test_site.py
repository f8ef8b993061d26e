"The book as a web site: built without Quarto, every link and anchor followed, searched and read in a browser."
import re
import shutil
import subprocess
import sys
from pathlib import Path

import make_site
import nbformat
import pytest
from site_builder.book import WINGS

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "All chapters, built once."
    return make_site.build(tmp_path_factory.mktemp("site")/"_docs")


def test_every_link_anchor_picture_and_equation(site):
    assert make_site.check(site.out, site.chapters, site.modules) == []


def test_course_first_then_wings(site):
    course = [c.number for c in site.chapters if c.number]
    assert site.chapters[0].path.stem == "index" and course == [f"{n:02}" for n in range(len(course))]
    wings = [c.wing for c in site.chapters if c.wing]
    assert [c.wing for c in site.chapters[-len(wings):]] == wings
    assert list(dict.fromkeys(wings)) == list(WINGS) and sorted(set(wings)) == sorted(
        p.name for p in (ROOT/"nbs").iterdir() if list(p.glob("*.ipynb")))
    text = (site.out/"04_attention.html").read_text(encoding="utf-8")
    assert 'rel="prev" href="03_backbones.html"' in text and 'rel="next" href="05_clb.html"' in text
    assert 'href="../api/tools.files.html"' in (site.out/"tools"/"files.html").read_text(encoding="utf-8")


def test_api_page_tells_parameters_and_chapter(site):
    text = (site.out/"api"/"attention.html").read_text(encoding="utf-8")
    entry = text[text.index('<section id="AttentionHead">'):text.index('id="AttentionHead.forward"')]
    assert "K, classes this head tells apart" in entry and re.search(r'href="../04_attention.html#[\w-]+"', entry)
    assert "the paper's F_a: features weighted by both maps" in text  # a field of a named tuple
    # a command shows its --help
    assert "--method" in (site.out/"api"/"report.commands.html").read_text(encoding="utf-8")


def test_exported_cells_lead_to_their_entries(site):
    text = (site.out/"04_attention.html").read_text(encoding="utf-8")
    assert 'href="api/attention.html#AttentionHead"' in text and "#| " not in text and "default_exp" not in text


def test_sidebar_for_quarto_is_in_sync(site):
    written = (ROOT/"nbs"/"sidebar.yml").read_text(encoding="utf-8")
    assert written == make_site.sidebar_yml(site.chapters), "run python .ci/make_site.py and commit nbs/sidebar.yml"


def test_nbdev_prepares_every_chapter_for_quarto(tmp_path):
    """The half of nbdev_docs that needs no Quarto: notebooks are processed without running them, code stays visible,
    pictures travel along."""
    shutil.copytree(ROOT/"nbs", tmp_path/"nbs")
    shutil.copytree(ROOT/"apse_nb", tmp_path/"apse_nb", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT/"settings.ini", tmp_path)
    code = ("from nbdev.serve import proc_nbs; from nbdev.quarto import refresh_quarto_yml; "
            "refresh_quarto_yml(); proc_nbs('nbs', n_workers=0)")
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    assert {p.relative_to(tmp_path/"_proc") for p in (tmp_path/"_proc").rglob("*.ipynb")} == {
        p.relative_to(ROOT/"nbs") for p in (ROOT/"nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts}
    assert (tmp_path/"_proc"/"images"/"hero.png").exists() and (tmp_path/"_proc"/"_quarto.yml").exists()
    assert "class AttentionHead" in (tmp_path/"_proc"/"04_attention.ipynb").read_text(encoding="utf-8")
    settings, ours = ((folder/"nbs"/"nbdev.yml").read_text() for folder in (tmp_path, ROOT))
    assert settings == ours, "settings.ini changed: nbdev_docs would write another nbs/nbdev.yml"


def small_book(folder: Path, name: str = "01_one.ipynb", *cells) -> Path:
    "One notebook with a start page."
    folder.mkdir()
    for path, parts in ((folder/"index.ipynb", ("# A book",)), (folder/name, ("# One\n> Small.", *cells))):
        made = [nbformat.v4.new_markdown_cell(c) if isinstance(c, str) else c for c in parts]
        for n, cell in enumerate(made):
            cell["id"] = f"cell-{n}"
        nbformat.write(nbformat.v4.new_notebook(cells=made), path)
    return folder


@pytest.fixture
def no_font(monkeypatch):
    "Cutting the font takes seconds and small books do not need it."
    monkeypatch.setattr(make_site.Site, "font", lambda self: (self.out/"equations.woff").touch())


PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def test_hostile_names_are_only_names(tmp_path, no_font):
    name = "01_<img src=x onerror=alert(1)> & \"two\" #3.ipynb"
    picture = nbformat.v4.new_code_cell("draw()",
                                        outputs=[nbformat.v4.new_output("display_data", {"image/png": PIXEL})])
    book = make_site.Site(tmp_path/"out", small_book(tmp_path/"nbs", name,
                                                     "## Part & <b>parcel</b>\n\nA picture follows. It is small.",
                                                     picture)).build()
    assert make_site.check(book.out, book.chapters, book.modules) == []
    page = (book.out/book.chapters[1].file).read_text(encoding="utf-8")
    assert "<img src=x" not in page and len(list((book.out/"figures").iterdir())) == 1
    assert 'alt="Chapter 01, picture 1, Part &amp; parcel: A picture follows. It is small."' in page


def test_equations_and_links(tmp_path, no_font):
    cells = ("## A & B\n\n$$\\frac{a}{b} \\le \\sum_i x_i \\qquad (1)$$\n\nand $x_i < y$ for 5$ and `$$`.",
             "[there](01_one.ipynb#A-&-B), [start](index.ipynb)")
    book = make_site.Site(tmp_path/"out", small_book(tmp_path/"nbs", "01_one.ipynb", *cells)).build()
    page = (book.out/"01_one.html").read_text(encoding="utf-8")
    assert make_site.check(book.out, book.chapters, book.modules) == []
    for shown in ('<math display="block">', "<mfrac>", 'href="01_one.html#a-b"', 'href="index.html"'):
        assert shown in page
    with pytest.raises(ValueError, match=r"01_one.ipynb: this equation cannot be read: '\\\\nosuch"):
        make_site.Site(tmp_path/"out2", small_book(tmp_path/"nbs2", "01_one.ipynb", "$\\nosuch{x}$")).build()


@pytest.mark.parametrize("text, complaint", [
    ("[x](02_two.ipynb)", "'02_two.html' does not exist"),
    ("[x](#nowhere)", "has no place called 'nowhere'"),
    ("![a](lost.png)", "'lost.png' does not exist"),
    ("![a](../../settings.ini)", "'../../settings.ini' does not exist"),
    ("<img src='https://example.org/a.png' alt='a'>", "<img> asks for 'https://example.org/a.png'"),
    ("<iframe srcdoc='&lt;img src=https://example.org/a.png alt=a>' src='about:blank'></iframe>",
     "<img> asks for 'https://example.org/a.png'"),
    ("<script src='//example.org/a.js'></script>", "<script> asks for '//example.org/a.js'"),
    ("<img src='data:image/png;base64,AA'>", "has no description"),
    ("[x](https://not an address)", None),          # Markdown itself leaves this one as text
    ("<a href='javascript:alert(1)'>x</a>", "<a> asks for 'javascript:alert(1)'"),
    ("<a href='https://exa mple.org'>x</a>", "is no address"),
    ("<p>$$x$$</p>", "an equation was left as text"),
])
def test_the_checker_finds(tmp_path, no_font, text, complaint):
    book = make_site.Site(tmp_path/"out", small_book(tmp_path/"nbs", "01_one.ipynb", text)).build()
    wrong = make_site.check(book.out, book.chapters, book.modules)
    assert complaint in " ".join(wrong) if complaint else wrong == []


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path/"mine.txt").write_text("keep")
    with pytest.raises(ValueError, match="holds no site"):
        make_site.Site(tmp_path, ROOT/"nbs").build()
    assert (tmp_path/"mine.txt").read_text() == "keep"


def test_reading_in_a_browser(site, page, shot):
    """From the start page by search to a chapter and to the API, by mouse and by keyboard; opened from a folder,
    without a server."""
    errors = []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.goto((site.out/"index.html").as_uri())
    assert page.locator("h1").inner_text() == "apse_nb"
    shot(page, "site_start")
    page.keyboard.press("/")
    page.keyboard.type("AttentionHead")
    page.wait_for_selector("#hits a")
    assert page.locator("#hits .what").first.inner_text() == "AttentionHead"
    page.locator("#hits a", has_text="04 Attention").first.click()
    page.wait_for_url("**/04_attention.html#*")
    shown = page.evaluate("""() => {
        const all = [...document.querySelectorAll(".equation math")], one = all[0].getBoundingClientRect();
        const frac = document.querySelector("mfrac").getBoundingClientRect();
        return [all.length, one.width, frac.height, document.fonts.check("16px Equations")] }""")
    assert shown[0] >= 3 and shown[1] > 50 and shown[2] > 20 and shown[3], shown
    assert page.evaluate("[...document.images].every(i => i.alt)")
    page.locator(".badge a", has_text="AttentionHead").first.click()
    page.wait_for_url("**/api/attention.html#AttentionHead")
    page.locator(".search input").fill("force on the positive turns")
    page.wait_for_selector("#hits a")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/08_negatives.html#*")
    page.click("button.theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 27)"
    page.click("a[rel=next]")
    page.wait_for_url("**/09_metrics.html")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"                 # the choice is kept
    page.set_viewport_size(dict(width=390, height=844))
    page.click(".menu")
    page.locator("#chapters a", has_text="Pair losses").click()
    page.wait_for_url("**/07_pair_losses.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390  # nothing sticks out on a phone
    page.screenshot(path=shot(page, "site_phone"))  # the first screen will do, the chapter is long
    assert errors == []