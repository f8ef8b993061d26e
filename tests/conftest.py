"Fixtures of several test files; for browser tests a headless Chromium page, a notebook served by Voila, screenshots."
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

# The background job of a script is started with SIGINT ignored, and hands that on to every process that a test starts.
# Tests of Ctrl-C need what a terminal would give them.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Two processes of tests that use two cores each are slower than two that use one each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.append(str(Path(__file__).parent.parent/".ci"))       # the builder of the site


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also the attacks in full; they take minutes each")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: an attack in full; runs with --slow")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config) -> int:
    "One process more than cores, as several tests wait for a browser or for a minute to pass."
    from apse_nb.tools.work import core_count
    return 1 + core_count()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "One process builds the site, one judges the claims, with all tests of it; any other test goes to whoever is free."
    from xdist.scheduler import LoadScopeScheduling

    class SomeFilesWhole(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return next((file for file in ("test_site.py", "test_findings.py") if file in nodeid), nodeid)
    return SomeFilesWhole(config, log)


ONLY_HERE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"       # of the browser
BLOCKED = "csp"            # a request that the page's own policy forbids is not sent
SHOTS = Path(os.environ.get("APSE_SHOTS", Path(__file__).parent.parent/"reports"/"browser"))


def pytest_collection_modifyitems(config, items) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="takes minutes; runs with --slow"))


@pytest.fixture(scope="session")
def encoder():
    "The shipped network as an encoder."
    from apse_nb.search.encoder import load_encoder
    return load_encoder("scenes")


def run(command, *words) -> Result:
    "What a command of this package does with these words: exit code, output, errors."
    return CliRunner().invoke(command, [*map(str, words)], prog_name=command.callback.__name__)


def output_of(command, *words, status: int = 0) -> str:
    "What it says, provided that it ends with this exit code."
    done = run(command, *words)
    assert done.exit_code == status, done.output
    return done.output


def on_circle(box: dict, degrees: float) -> tuple[float, float]:
    "Where the unit circle of negatives has this angle, in the page; `box` is the bounding box of its drawing."
    return (box["x"] + box["width"]*(1.75 + math.cos(math.radians(degrees)))/3.5,
            box["y"] + box["height"]*(1.5 - math.sin(math.radians(degrees)))/3)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(address: str, process: subprocess.Popen, log: Path, seconds: float = 60) -> None:
    "Return when the address answers; fail with the server's last words if it does not."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"{address} does not answer: {log.read_text()[-2000:]}")


def stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()


@pytest.fixture(scope="session")
def browser():
    sync = pytest.importorskip("playwright.sync_api", reason="browser tests need playwright: pip install playwright")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("browser tests need Chromium on the PATH, for example: apt-get install chromium")
    with sync.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium,
                                    args=["--no-sandbox", "--disable-dev-shm-usage", ONLY_HERE])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    "A fresh page; a request to another machine finds no address and fails the test."
    context, outside = browser.new_context(viewport=dict(width=1280, height=900), accept_downloads=True), []

    def note(request):
        if not re.match(r"((http|ws)s?://(127\.0\.0\.1|localhost)[:/]|data:|blob:|file:)", request.url):
            outside.append(request)

    # not `context.route`: what a page sends while it is left (its good-bye to the server) would never arrive
    context.on("request", note)
    page = context.new_page()
    page.on("websocket", note)
    page.set_default_timeout(120_000)
    yield page
    context.close()
    sent = [request.url for request in outside if getattr(request, "failure", None) != BLOCKED]
    assert not sent, f"the page asked for {sent}"


@pytest.fixture
def launch(tmp_path):
    "Start a server as `launch(arguments, address)`; it is stopped when the test ends."
    running = []

    def start(arguments: list[str], address: str, **kwargs) -> str:
        log = tmp_path/f"server{len(running)}.log"
        process = subprocess.Popen(arguments, stdout=log.open("w"), stderr=subprocess.STDOUT, **kwargs)
        running.append(process)
        wait_for(address, process, log)
        return address

    yield start
    for process in running:
        stop(process)


@pytest.fixture
def serve(tmp_path, launch):
    "Serve code cells as `apse_explore` serves its page: `serve('from apse_nb... ', ...) -> address`."
    from apse_nb.widgets.server import write_page

    def start(*cells: str) -> str:
        port = free_port()
        code = "from apse_nb.widgets.server import serve_page; serve_page"
        code += repr((str(write_page(tmp_path, *cells)), port, "test"))
        launch([sys.executable, "-c", code], f"http://127.0.0.1:{port}/voila/static/voila.js", cwd=tmp_path)
        return f"http://127.0.0.1:{port}/?token=test"
    return start


@pytest.fixture
def shot():
    "Keep a picture of the page: `shot(page, 'name')`."
    def keep(page, name: str) -> Path:
        SHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SHOTS/f"{name}.png", full_page=True)
        return SHOTS/f"{name}.png"
    return keep
