"""The course as a reader meets it: frame, summary, exercises with collapsed answers, cells and paragraphs of a
readable size."""
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHAPTERS = sorted((ROOT/"nbs").glob("[0-9][0-9]_*.ipynb"))
SUMMARY = ("symbols", "shapes", "variants", "default", "what was found")


def cells(path: Path) -> list[dict]:
    found = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [dict(c, text="".join(c["source"])) for c in found]


def test_chapters_are_numbered_without_gaps():
    assert [p.name[:2] for p in CHAPTERS] == [f"{n:02}" for n in range(14)]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_chapter_opens_with_the_system_and_what_a_reader_can_do_at_its_end(path):
    text = "\n".join(c["text"] for c in cells(path)[:3])
    picture = re.search(r"!\[[^\]]{20,}\]\((images/system_(\d\d)\.svg)\)", text)
    assert picture and picture[2] == path.name[:2] and (ROOT/"nbs"/picture[1]).exists()
    assert "After this chapter you can" in text and re.search(r"About \d+ minutes", text) and "(notation.ipynb)" in text


@pytest.mark.parametrize("path", CHAPTERS[:-1], ids=lambda p: p.stem)
def test_chapter_closes_with_five_lines_and_exercises_with_collapsed_answers(path):
    found = cells(path)
    at = [i for i, c in enumerate(found) if c["text"].startswith("## In five lines")]
    assert len(at) == 1
    assert re.findall(r"^\| \*\*(.+?)\*\* \|", found[at[0]]["text"], re.M) == list(SUMMARY)
    rest = found[at[0] + 1:]
    assert rest and rest[0]["text"].startswith("## Exercise")
    answers = [c for c in rest if c["cell_type"] == "code" and c["text"].strip() and "#| hide" not in c["text"]]
    assert answers, "an exercise needs an answer"
    for c in answers:
        assert c["metadata"].get("jupyter", {}).get("source_hidden") and "answer" in c["metadata"].get("tags", [])


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_cells_and_paragraphs_can_be_taken_in_at_once(path):
    for c in cells(path):
        if c["cell_type"] == "code":
            lines = c["text"].splitlines()
            assert len(lines) <= 40, f"{len(lines)} lines: {lines[0]}"
            continue
        for paragraph in re.split(r"\n\s*\n", c["text"]):
            if not paragraph.lstrip().startswith(("|", "-", "*", "1.")):
                assert len(paragraph.split()) <= 120, f"{len(paragraph.split())} words: {paragraph[:60]}"


def test_the_course_takes_less_than_nine_hours():
    words = lines = 0
    for path in CHAPTERS:
        for c in cells(path):
            if c["cell_type"] == "markdown":
                words += len(c["text"].split())
            else:
                lines += sum(bool(line.strip()) for line in c["text"].splitlines())
    assert (words/170 + lines/22)/60 <= 9


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_a_chapter_has_at_most_four_thousand_words(path):
    text = "\n".join(c["text"] for c in cells(path) if c["cell_type"] == "markdown")
    prose = re.sub(r"\$\$.*?\$\$|\$[^$]*\$|^\|[^\n]*", " ", text, flags=re.S | re.M)     # without formulas and tables
    assert len(re.findall(r"\S*\w\S*", prose)) <= 4000
