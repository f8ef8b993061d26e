"""Builds the book as a web site: chapters with navigation and search, API pages from docments, images, equations as
MathML. Needs no Quarto, runs no notebook (their outputs are committed), and the pages ask nothing of the internet.

    python .ci/make_site.py            build into _docs
    python .ci/make_site.py --check    build, then follow every link; exit status 1 with a list if something is wrong

One page, live/network, runs the shipped network in the browser. What it needs is no part of the project (16 MB);
without it the page says what is missing. To have it, run this in the repository's folder before:

    pip install onnx && npm install --no-save onnxruntime-web

The course is the numbered notebooks of nbs/, in the order of their numbers; each folder below is a wing. Titles are
first headings.

Why not Sphinx with myst-nb? It was tried in November 2026 (Sphinx 8.2, myst-nb 1.4; chapters 04, 05, 09, two pages of
wings). Links to notebooks work, and so does search from a folder, without excerpts: those need a server. Without
extensions of our own, equations need MathJax from the internet (0 of 100 in chapter 04 offline; ours are MathML, no
script), 7 of 8 figures there have a file name as alternative text, `#| export` stays in the code, the dark scheme is
not followed, and there are no tables of parameters from docments. To mend that would take, by an estimate, 450 of
today's 1,300 lines of Python and templates (the tables alone 200), beside the tool and its theme; live/ would stay."""
import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from site_builder.book import ROOT, read_settings, sidebar_yml
from site_builder.check import check
from site_builder.live_pages import write_live_pages
from site_builder.pages import Site


def build(out: Path) -> Site:
    "The whole site."
    sys.path.insert(0, str(ROOT))     # commands are asked for their --help
    return Site(out).build(write_live_pages)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, default=ROOT/read_settings()["doc_path"],
                        help="folder to write (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="check the built site")
    arguments = parser.parse_args()
    try:
        site = build(arguments.out)
    except ValueError as e:
        print(f"make_site: {e}", file=sys.stderr)
        return 2
    (ROOT/"nbs"/"sidebar.yml").write_text(sidebar_yml(site.chapters), encoding="utf-8")
    files = [p for p in arguments.out.rglob("*") if p.is_file()]
    print(f"{sum(p.suffix == '.html' for p in files)} pages, {len(files)} files, "
          f"{sum(p.stat().st_size for p in files)/1e6:.1f} MB in {arguments.out}")
    if not arguments.check:
        return 0
    wrong = check(arguments.out, site.chapters, site.modules)
    print("\n".join(wrong) if wrong else "every link, anchor, image and equation is in its place")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
