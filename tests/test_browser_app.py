"apse_explore as a user meets it: the command is started, the page opened, searched, closed; and as a stranger does."
import http.client
import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psutil
import pytest
from conftest import free_port, stop, wait_for

from apse_nb.scenes import make_scenes, save_scenes

TRAPS = ("voila.py", "pandas.py", "jupyter_config.py", "jupyter_server_config.py", "ipython_config.py",
         "sitecustomize.py")
HOSTILE = "<img src=x onerror=document.title='hit'>.png"
# as the installed command, which does not have the current directory on Python's path
CODE = ("import sys, webbrowser; sys.path.remove(''); "
        "webbrowser.open = lambda address: print(address, file=sys.stderr); "
        "from apse_nb.widgets.commands import apse_explore; apse_explore()")


@pytest.fixture
def folder(tmp_path):
    """Forty drawn images in class folders, the first of them with a hostile name, one file that is no image, and what
    a stranger might put beside them to have it executed."""
    root = tmp_path/"mine"
    save_scenes(make_scenes(40, size=96, seed=3, workers=1), root)
    os.rename(root/"masks", tmp_path/"masks")
    first = min((root/"amusement").iterdir())
    first.rename(first.with_name(HOSTILE))
    (root/"awe"/"notes.png").write_text("not an image")
    for place in (tmp_path, root):
        for name in TRAPS:
            (place/name).write_text(f"open({str(tmp_path/'executed')!r}, 'a').write({name!r})")
        (place/"voila.json").write_text('{"Voila": {"token": "", "ip": "0.0.0.0"}}')
    # a kernel called python3 that belongs to another Python
    foreign = tmp_path/"foreign"/"kernels"/"python3"
    foreign.mkdir(parents=True)
    (foreign/"kernel.json").write_text('{"argv": ["false"], "display_name": "Python 3", "language": "python"}')
    return root


@contextmanager
def explored(folder: Path, *more: str):
    "The command, running in the folder with the traps: its process, what it said, and where its errors go."
    place = folder.parent
    errors = place/"errors"
    arguments = [folder.name, "--open", "--port", str(free_port()), *more]
    process = subprocess.Popen([sys.executable, "-c", CODE, *arguments], cwd=place,
                               env=os.environ | dict(JUPYTER_PATH=str(place/"foreign")),
                               stdout=subprocess.PIPE, stderr=errors.open("w"), text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    said = ""
    for line in process.stdout:
        said += line
        if line.startswith("Open this address"):
            break
    else:
        raise AssertionError(errors.read_text())
    yield process, said, errors
    stop(process)                              # if the test has not


@pytest.fixture
def explore(folder):
    with explored(folder) as running:
        yield running


def kernels(process=None) -> list[psutil.Process]:
    "The Python processes behind pages."
    found = []
    for p in psutil.Process(process and process.pid).children(recursive=True):
        try:
            words = " ".join(p.cmdline())
        except psutil.NoSuchProcess:           # it has ended meanwhile, or has ended and nobody has asked how
            continue
        if "ipykernel" in words:
            found.append(p)
    return found


def ask(port: int, path: str, host: str | None = None, **headers) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest("GET", path, skip_host=True)
    for name, value in (("Host", host or f"127.0.0.1:{port}"), *headers.items()):
        connection.putheader(name, value)
    connection.endheaders()
    return connection.getresponse()


def try_without_a_token(page, said: str, process, errors) -> str:
    "Nobody gets in. The address with the token."
    address, plain = re.search(r"^((http://127\.0\.0\.1:\d+/)\?token=\S{20,})$", said, re.M).groups()
    wait_for(plain + "login", process, errors)
    page.goto(plain)
    assert "/login" in page.url and page.get_by_label("Password or token").is_visible()
    return address


def look_at_all_widths(page, results, shot) -> None:
    "Nothing is cut off, and a result is in sight."
    for width in (1280, 800, 390):
        page.set_viewport_size(dict(width=width, height=900))
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"cut off at {width} pixels"
        below = results.first.locator("img").bounding_box()
        assert below["y"] + below["height"] < 900, f"no result in sight at {width} pixels"
        shot(page, f"app_search_{width}")
    page.set_viewport_size(dict(width=1280, height=900))


def ask_with_an_image(page, results, folder) -> None:
    "From outside, dropped as a file: it finds itself, its name is shown as text. Then one that is pasted."
    page.locator(".apse-upload input").first.set_input_files(folder/"amusement"/HOSTILE)
    page.get_by_text(f"Query: your image {HOSTILE}").wait_for()
    assert results.first.locator("img").get_attribute("alt").find(f"amusement/{HOSTILE}") > 0
    assert page.locator("img[src=x]").count() == 0 and page.title() != "hit"                     # not obeyed
    page.evaluate("""async () => {
        const image = document.querySelector("[aria-label^='results'] button:nth-child(3) img");
        const blob = await (await fetch(image.src)).blob(), data = new DataTransfer();
        data.items.add(new File([blob], "pasted.jpg", { type: "image/jpeg" }));
        document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true })); }""")
    page.get_by_text("Query: your image pasted.jpg").wait_for()


def ask_with_a_feeling(page, shot) -> None:
    page.get_by_label("feeling").select_option("awe")
    page.get_by_text("Query: awe", exact=True).wait_for()
    page.wait_for_function(
        """() => document.querySelector("[aria-label^='results'] .apse-line").textContent.endsWith("%")""")
    shot(page, "app_feeling")


def enlarge_and_save(page, results, folder) -> None:
    "The large image, by keyboard, with the path to copy; the results as CSV and HTML."
    results.first.focus()
    page.keyboard.press("o")
    box = page.locator("dialog[open]")
    box.wait_for()
    assert str(folder) in box.locator("code").inner_text()
    assert box.locator("img").evaluate("i => i.decode().then(() => i.naturalWidth)") == 96
    page.keyboard.press("Escape")
    with page.expect_download() as download:
        page.get_by_role("button", name="CSV").click()
    lines = download.value.path().read_text(encoding="utf-8").splitlines()
    assert lines[0] == "rank,name,path,similarity,emotion" and len(lines) == 25
    with page.expect_download() as download:
        page.get_by_role("button", name="HTML").click()
    saved = download.value.path().read_text(encoding="utf-8")
    assert saved.count('src="data:image/jpeg') == 24 and "<script" not in saved and "<img src=x" not in saved


def compare_two_queries(page, results, shot) -> None:
    "Side by side; the first one stays and can still be walked from."
    page.get_by_role("button", name="Keep beside").click()
    page.get_by_text("Kept: awe", exact=True).wait_for()
    page.get_by_label("feeling").select_option("fear")
    page.get_by_text("Query: fear", exact=True).wait_for()
    kept = page.locator("[aria-label='kept results, most similar first'] button")
    left, right = kept.first.bounding_box(), results.first.bounding_box()
    assert left["x"] + left["width"] <= right["x"] and abs(left["y"] - right["y"]) < 80
    shot(page, "app_beside_1280")
    go_to_390(page)
    # on a telephone what was just asked for comes first
    assert results.first.bounding_box()["y"] < kept.first.bounding_box()["y"]
    shot(page, "app_beside_390")
    page.set_viewport_size(dict(width=1280, height=900))
    page.get_by_role("button", name="Close").click()
    kept.first.wait_for(state="hidden")


def open_the_options(page) -> None:
    "They are out of the way until they are asked for."
    assert not page.get_by_label("confidence", exact=True).is_visible()
    page.get_by_role("button", name="Options").click()
    page.get_by_label("confidence", exact=True).wait_for()
    page.get_by_role("button", name="Fewer options").click()


def go_through_the_tabs(page, results, shot) -> None:
    "They follow the query of the search, and fit; so does the dark scheme."
    name = re.search(r"\w+/scene_\w+\.png", results.nth(2).locator("img").get_attribute("alt"))[0]
    results.nth(2).click()
    page.get_by_text(f"Query: {name}").first.wait_for()
    page.get_by_role("tab", name="Attention").click()
    page.get_by_text(f"The query of the search: {name}").wait_for()
    page.locator(f"img[alt^='Your image {name}.']:visible").wait_for()
    for tab in ("Map", "Attention", "Negatives", "Losses"):
        page.get_by_role("tab", name=tab).click()
        page.locator(".apse-map canvas:visible" if tab == "Map" else "img[alt]:visible").first.wait_for()
        for width in (1280, 390):
            page.set_viewport_size(dict(width=width, height=900))
            page.wait_for_timeout(500)
            fits = page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert fits, f"{tab} is cut at {width} pixels"
            shot(page, f"app_{tab.lower()}_{width}")
        page.set_viewport_size(dict(width=1280, height=900))
    page.emulate_media(color_scheme="dark")
    page.get_by_role("tab", name="Search").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 24, 27)"
    shot(page, "app_search_dark")


def end_with_ctrl_c(process, errors) -> None:
    "One process a page, and none stays behind."
    assert len(kernels(process)) == 1
    behind = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert not psutil.wait_procs(behind, 10)[1]
    assert "Traceback" not in errors.read_text()


def test_apse_explore(explore, folder, page, shot, tmp_path):
    process, said, errors = explore
    assert "40 images, 1 file skipped" in said
    address = try_without_a_token(page, said, process, errors)
    page.goto(address, wait_until="commit")
    # something to look at while the network is loaded
    page.get_by_text(re.compile("Running|Executing|Starting|Loading")).first.wait_for()
    results = page.locator("[aria-label='results, most similar first'] button")
    results.first.wait_for()
    assert page.get_by_text(re.compile("40 images of .*mine; searched with the small network")).is_visible()
    look_at_all_widths(page, results, shot)
    ask_with_an_image(page, results, folder)
    ask_with_a_feeling(page, shot)
    enlarge_and_save(page, results, folder)
    compare_two_queries(page, results, shot)
    open_the_options(page)
    go_through_the_tabs(page, results, shot)
    end_with_ctrl_c(process, errors)
    assert not (tmp_path/"executed").exists()


def test_two_models_side_by_side(folder, tmp_path, page, shot):
    "A second index, of another network without an emotion head: each query goes to both, and both say what they found."
    from click.testing import CliRunner

    from apse_nb.network import APSE
    from apse_nb.search.commands import apse_index
    from apse_nb.training import Recipe, save_model
    from apse_nb.widgets.commands import apse_explore

    other, index = tmp_path/"plain.safetensors", tmp_path/"plain_index"
    save_model(APSE(backbone="scene_net", weights="shapes", dim=16, pooling="low_rank", heads="none", attend="none"),
               other, recipe=vars(Recipe(resize=96, crop=88)))
    said = CliRunner().invoke(apse_explore, [str(folder), "--beside", str(index)])
    assert said.exit_code == 2 and "There is no index" in said.output and not index.exists()
    said = CliRunner().invoke(apse_index, [str(folder), "--model", str(other), "--index", str(index)])
    assert "40 images: 40 new" in said.output

    with explored(folder, "--beside", str(index)) as (process, said, errors):
        address, plain = re.search(r"^((http://127\.0\.0\.1:\d+/)\?token=\S{20,})$", said, re.M).groups()
        wait_for(plain + "login", process, errors, 120)
        page.goto(address)
        look_at_two(page, shot, folder)


def go_to_390(page) -> None:
    "A telephone's width, where nothing sticks out."
    page.set_viewport_size(dict(width=390, height=900))
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def look_at_two(page, shot, folder: Path) -> None:
    first = page.locator("[aria-label='results, most similar first'] button")
    second = page.locator("[aria-label='results of the second model, most similar first'] button")
    second.first.wait_for()
    assert page.get_by_text(re.compile("searched with the small network.*beside it with your checkpoint")).is_visible()

    def ids(grid) -> list[str]:
        return grid.evaluate_all("all => all.map(b => b.dataset.id)")

    def compare() -> None:
        "Different results, and the sentence says how many are shared."
        here, there = ids(first), ids(second)
        assert len(here) == len(there) == 24 and here != there
        page.get_by_text(f"{len(set(here) & set(there))} of them are found by both.").wait_for()

    compare()
    left, right = first.first.bounding_box(), second.first.bounding_box()
    assert left["x"] + left["width"] <= right["x"] and abs(left["y"] - right["y"]) < 40
    shot(page, "app_two_models_1280")
    go_to_390(page)
    shot(page, "app_two_models_390")
    page.set_viewport_size(dict(width=1280, height=900))

    chosen = ids(second)[3]                    # a click at the right is a query for both
    second.nth(3).click()
    page.wait_for_function("([i]) => ![...document.querySelectorAll('.apse-tile')].some(b => b.dataset.id === i)",
                           arg=[chosen])
    compare()
    drawn = next(p for p in (folder/"fear").iterdir())
    page.locator(".apse-upload input").first.set_input_files(drawn)
    page.get_by_text(f"Query: your image {drawn.name}").wait_for()
    compare()
    assert all(drawn.name in grid.first.locator("img").get_attribute("alt") for grid in (first, second))
    page.get_by_label("feeling").select_option("awe")          # what the second one cannot be asked
    page.get_by_text(re.compile("plain.safetensors: This network knows no emotions")).wait_for()
    assert first.count() == 24 and second.count() == 0


def test_strangers_at_the_door(explore, tmp_path):
    "Other hosts, odd paths, frames, cookies: refused, quietly."
    process, said, errors = explore
    port, token = re.search(r"^http://127\.0\.0\.1:(\d+)/\?token=(\S+)$", said, re.M).groups()
    port = int(port)
    wait_for(f"http://127.0.0.1:{port}/login", process, errors)
    # --open: the browser is given a file that only this user can read, and it leads to the address with the token
    opened = Path(unquote(urlsplit(re.search(r"^file://\S+$", errors.read_text(), re.M)[0]).path))
    assert f'url=http://127.0.0.1:{port}/?token={token}"' in opened.read_text()
    assert opened.parent.stat().st_mode & 0o077 == 0
    assert ask(port, f"/login?token={token}", "evil.example").status == 403           # DNS rebinding
    assert ask(port, "/login", f"localhost:{port}").status == 200
    for path in ("/voila/templates/x", "/voila/templates/lab/x", "/%ff", "/voila/static/%00", "/a%0ab", "/voila/static/"
                 + "a"*3000, "/voila/static/..%2f..%2fetc/passwd", "/voila/files/..%2fx", "/voila/api/kernels/x",
                 "/voila/static/no.js"):
        assert ask(port, path).status in (400, 403, 404, 302), path
    answer = ask(port, "/login")
    headers = {k.lower(): v for k, v in answer.getheaders()}
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY" and headers["referrer-policy"] == "same-origin"
    cookies = [v for k, v in ask(port, f"/login?token={token}").getheaders() if k.lower() == "set-cookie"]
    assert cookies and all("samesite=strict" in c.lower() for c in cookies), cookies
    assert not (tmp_path/"executed").exists() and "Traceback" not in errors.read_text()


def test_the_page_says_what_is_wrong(page, serve):
    "An index that has gone: one sentence on the page, no word of Voila."
    page.goto(serve("from apse_nb.widgets.server import Shell\nShell('/no/such/index')"))
    page.get_by_role("alert").wait_for()
    assert "/no/such/index" in page.get_by_role("alert").inner_text()
    assert "show_tracebacks" not in page.content() and "Traceback" not in page.content()


def test_a_page_that_is_left_takes_its_process_along(page, serve):
    address = serve("from apse_nb.widgets.server import Shell\nShell('/no/such/index')")
    for _ in range(4):
        page.goto(address)                      # from the second time on, this leaves the page before it
        page.get_by_role("alert").wait_for()
    left = len(kernels())
    page.goto("about:blank")
    assert left <= 2 and all_end(page)


def all_end(page, process=None, seconds: int = 20) -> bool:
    "Whether all processes behind pages end soon."
    for _ in range(5*seconds):
        if not kernels(process):
            return True
        page.wait_for_timeout(200)
    return False


def test_a_fifth_page_is_told_that_four_are_open(page, serve):
    address = serve("from apse_nb.widgets.server import Shell\nShell('/no/such/index')")
    pages = [page, *(page.context.new_page() for _ in range(4))]
    for one in pages[:4]:
        one.goto(address)
        one.get_by_role("alert").wait_for()
    answer = pages[4].goto(address)
    assert answer.status == 503 and "4 pages of apse_explore are open already: close one" in pages[4].inner_text("body")
    assert len(kernels()) == 4
    pages[1].goto("about:blank")
    pages[4].goto(address)
    pages[4].get_by_role("alert").wait_for()
    for one in pages:
        one.goto("about:blank")
    assert all_end(page)


def megabytes(process) -> float:
    "Memory of a process and all that it has started; what they share counts once."
    total = 0
    for p in [process, *process.children(recursive=True)]:
        try:
            total += p.memory_full_info().pss if hasattr(psutil, "PROCFS_PATH") else p.memory_info().rss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return total/2**20


@pytest.mark.parametrize("loads", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_page_loads_stay_small(loads, explore, page):
    """Pages that are looked at and pages that are left at once: all processes together stay under 2 GB at every moment,
    and none remains."""
    process, said, errors = explore
    address, plain = re.search(r"^((http://127\.0\.0\.1:\d+/)\?token=\S{20,})$", said, re.M).groups()
    wait_for(plain + "login", process, errors)
    server, seen, done = psutil.Process(process.pid), [], threading.Event()

    def watch():
        while not done.wait(.3):
            seen.append(megabytes(server))
    watching = threading.Thread(target=watch)
    watching.start()
    try:
        for i in range(loads):
            page.goto(address, wait_until="commit")
            if i % 2:
                page.locator("[aria-label='results, most similar first'] button").first.wait_for()
        page.goto("about:blank")
        assert all_end(page, process, 90)              # those whose good-bye was never sent, after a minute
    finally:
        done.set()
        watching.join()
    print(f"{loads} loads: {max(seen):.0f} MB at most, {len(seen)} looks")
    assert 100 < max(seen) < 2000, max(seen)
