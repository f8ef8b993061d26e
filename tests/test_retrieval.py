"""A gallery of one's own images: folders as they come, faults, two processes, and the two commands."""
import io
import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import run
from PIL import Image

from apse_nb.images import decode_square
from apse_nb.search import blocks as vector_blocks, commands, database, records
from apse_nb.search.commands import apse_index, apse_search
from apse_nb.search.gallery import Gallery
from apse_nb.search.results import Asked, result_page
from apse_nb.search.entries import ImageRow
from apse_nb.search.store import Store
from apse_nb.tools.files import LARGEST_IMAGE, one_line, shell_word

HOSTILE = ['<img src=x onerror=alert(1)>.png', 'a"b\'c`$(touch x).png', "line\nbreak.png", "\x1b[31mred.png",
           "画像 ñ Ω.png", "-rf.png", "%41 100%.png", os.fsdecode(b"caf\xe9\xff.png")]


def picture(seed: int, size=(40, 30)) -> Image.Image:
    "Different for every seed, with even areas as drawings have them."
    small = Image.fromarray(np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.NEAREST)


def folder_of(root: Path, n: int = 6, names=None) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names or [f"{i}.png" for i in range(n)]):
        picture(i).save(root/name, "PNG")
    return root


def snapshot(index) -> dict:
    with Gallery.open(index) as gallery:
        found = gallery.contents()
        return {e.name: (e.digest, e.embedding.round(4).tolist(), gallery.thumbnail(e) is not None)
                for e in found.entries}


def one_sentence(result, words):
    assert result.exit_code == 2 and result.stdout == "", result.output
    lines = [line for line in result.stderr.splitlines() if "is a demo" not in line]
    assert len(lines) == 1 and words in lines[0], result.stderr


# ---------------------------------------------------------------- keeping up with a folder
def test_new_changed_moved_and_deleted_files(tmp_path, encoder, monkeypatch):
    root = folder_of(tmp_path/"a")
    with Gallery.create(root, model=encoder) as gallery:
        assert sorted(gallery.update().added) == [f"{i}.png" for i in range(6)] and len(gallery) == 6
        decoded = []
        real = records.decoded
        monkeypatch.setattr(records, "decoded", lambda data, name, resize: decoded.append(1)
                            or real(data, name, resize))
        assert gallery.update().unchanged == 6 and decoded == []
        picture(77).save(root/"0.png")                       # changed
        (root/"deep").mkdir()
        (root/"1.png").rename(root/"deep"/"moved.png")       # moved
        (root/"2.png").unlink()                              # deleted
        os.utime(root/"3.png", (1, 1))                       # touched
        shutil.copy(root/"4.png", root/"copy.png")           # copied
        picture(78).save(root/"new.jpg")
        done = gallery.update()
        assert (done.added, done.changed, done.removed) == (["new.jpg"], ["0.png"], ["1.png", "2.png"])
        assert sorted(done.copied) == ["3.png", "copy.png",
                                       "deep/moved.png"] and done.unchanged == 2 and len(decoded) == 2
        (kept,) = gallery.store._db.all("SELECT count(*) FROM thumbnails")[0]
        assert len(gallery) == 7 and kept == 6       # the copy shares its thumbnail; those of the gone are gone
    incremental = snapshot(root/".apse_index")
    with Gallery.create(root, tmp_path/"fresh", encoder) as gallery:
        gallery.update()
    fresh = snapshot(tmp_path/"fresh")
    assert incremental.keys() == fresh.keys()
    for name in fresh:
        assert incremental[name][0] == fresh[name][0] and np.allclose(incremental[name][1], fresh[name][1], atol=1e-3)


def test_a_swap_of_two_files_is_noticed(tmp_path, encoder):
    "Contents that are known, under a name whose own contents change in the same update."
    root = folder_of(tmp_path/"a", 3)
    with Gallery.create(root, model=encoder) as gallery:
        gallery.update()
        (root/"0.png").rename(root/"x.png")
        (root/"1.png").rename(root/"0.png")
        (root/"x.png").rename(root/"1.png")
        for name in ("0.png", "1.png"):
            os.utime(root/name)
        gallery.update()
        for entry in gallery:
            again, _ = encoder(records.decoded((root/entry.name).read_bytes(), "x", encoder.resize)[0][None])
            assert np.allclose(entry.embedding, again[0], atol=1e-4), entry.name


KILLS = """
import os, signal, sys, threading, time
import torch
torch.set_num_threads(1)
import apse_nb.search.gallery as r
from apse_nb.search.encoder import load_encoder
r.AT_ONCE, encoder, real = 4, load_encoder('scenes'), r.Store.put

def dies(before, after):        # before the n-th write, or some milliseconds after it
    def put(self, *rows):
        before[0] -= 1
        if before[0] == 0: os.kill(os.getpid(), signal.SIGKILL)
        real(self, *rows)
        if before[0] == 1 and after: threading.Timer(after/1000, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return put

for before, after in ((1, 0), (3, 0), (4, 2), (5, 7), (-1, 0)):
    child = os.fork()
    if child == 0:
        r.Store.put = dies([before], after)
        with r.Gallery.create(sys.argv[1], sys.argv[2], encoder) as g: g.update()
        os._exit(0)
    print(os.waitpid(child, 0)[1])
"""

def test_killed_anywhere_goes_on(tmp_path, encoder):
    "kill -9 before, in and after a write, one run after the other; in the end the index is that of an undisturbed run."
    root = folder_of(tmp_path/"a", 80)
    killed = subprocess.run([sys.executable, "-c", KILLS, str(root), str(tmp_path/"i")], capture_output=True, text=True)
    assert killed.stdout.split() == ["9", "9", "9", "9", "0"], killed.stderr[-1500:]
    with Gallery.create(root, tmp_path/"fresh", encoder) as gallery:
        gallery.update()
    a, b = snapshot(tmp_path/"i"), snapshot(tmp_path/"fresh")
    assert a.keys() == b.keys() and len(a) == 80
    for name in b:
        assert a[name][0] == b[name][0] and a[name][2] and np.allclose(a[name][1], b[name][1], atol=1e-3)


@pytest.mark.parametrize("left", [b"", None])
def test_killed_while_the_index_was_made(tmp_path, encoder, left):
    "What is there then is an empty file, or none; it is no index yet, and the next one makes it."
    root, index = folder_of(tmp_path/"a", 2), tmp_path/"a"/".apse_index"
    index.mkdir()
    if left is not None:
        (index/database.FILE).write_bytes(left)
    with pytest.raises(FileNotFoundError, match="apse_index"):
        Gallery.open(index)
    with Gallery.create(root, model=encoder) as gallery:
        assert len(gallery.update().added) == 2


# ---------------------------------------------------------------- several processes
HOLDER = """
import sys
from apse_nb.search.gallery import Gallery
with Gallery.create(sys.argv[1]) as gallery:
    print("in", flush=True)
    sys.stdin.read()
"""

def test_the_second_writer_is_told_who_has_it(tmp_path, encoder):
    root = folder_of(tmp_path/"a", 2)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"in\n"
    with pytest.raises(ValueError, match=rf"Process {holder.pid} \(indexing, since .*wait for its end"):
        Gallery.create(root, model=encoder, wait=.1)
    # whoever only asks need not wait
    assert run(apse_search, "--emotion", "awe", "--folder", root, "--wait", 0).exit_code == 0
    holder.communicate()
    with Gallery.create(root, model=encoder) as gallery:
        assert len(gallery.update().added) == 2        # the lock is free again


def test_twice_in_one_program(tmp_path, encoder):
    "A notebook's cell that runs again: readers share, and a forgotten writer is named as one's own."
    root = folder_of(tmp_path/"a", 2)
    with Gallery.create(root, model=encoder) as gallery:
        gallery.update()
        with pytest.raises(ValueError, match="This program itself .* close that gallery first"):
            Gallery.create(root, model=encoder, wait=0)
        with Gallery.open(root/".apse_index") as one, Gallery.open(root/".apse_index") as other:
            assert len(one.by_emotion("awe")) == len(other.by_emotion("awe")) == 2


def test_a_waiting_writer_gets_its_turn(tmp_path, encoder):
    root = folder_of(tmp_path/"a", 4)
    code = "import sys; from apse_nb.search.commands import apse_index; apse_index([sys.argv[1], '--wait', '60'])"
    both = [subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True) for _ in range(2)]
    said = sorted(p.communicate()[0] for p in both)
    assert (
        [p.returncode for p in both] == [0, 0]
        and "0 new" in said[0]
        and "4 as before" in said[0]
        and "4 new" in said[1]
    )
    assert len(snapshot(root/".apse_index")) == 4


def test_many_search_while_one_indexes(tmp_path, encoder):
    "Eight searches at once, none is refused."
    root = folder_of(tmp_path/"a", 4)
    with Gallery.create(root, model=encoder) as gallery:
        gallery.update()
        code = ("import sys; from apse_nb.search.commands import apse_search; "
                "apse_search(['--emotion', 'awe', '--folder', sys.argv[1], '--wait', '5'])")
        searches = [subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True)
                    for _ in range(8)]
        for i in range(20):
            picture(100 + i).save(root/f"new{i}.png")
        gallery.update()
        said = [search.communicate()[0] for search in searches]
    assert [search.returncode for search in searches] == [0]*8 and all(s.count(".png") >= 4 for s in said)


# ---------------------------------------------------------------- exactness
def test_search_equals_brute_force(tmp_path, encoder):
    root = folder_of(tmp_path/"a", 50)
    with Gallery.create(root, model=encoder) as gallery:
        gallery.update()
        every = gallery.contents()
        query = encoder(np.asarray(picture(999, (encoder.resize,)*2))[None])[0][0]
        ranking = np.argsort(-every.embeddings @ query, kind="stable")
        hits = gallery.search(query, 50)
        assert np.allclose([h.similarity for h in hits], np.sort(every.embeddings @ query)[::-1], atol=1e-5)
        assert {h.name for h in hits[:5]} == {every.entries[i].name for i in ranking[:5]}
        for name, label in (("awe", [1]), ("negative", [4, 5, 6, 7])):
            assert np.allclose([h.similarity for h in gallery.by_emotion(name, 50)],
                               np.sort(every.confidences[:, label].sum(1))[::-1], atol=1e-5)
        assert [e.name for e in every.entries] == sorted(e.name for e in every.entries) and sum(1
                for _ in gallery) == 50


def test_cells_take_over(tmp_path, encoder, monkeypatch):
    "A large gallery is sorted into cells; what comes and goes afterwards is found and gone."
    monkeypatch.setattr(vector_blocks, "EXACT_UP_TO", 10)
    root = folder_of(tmp_path/"a", 80)
    with Gallery.create(root, model=encoder) as gallery:
        gallery.update()
        assert len(gallery.store._blocks.centres()) == 8
        every, query = gallery.contents(), gallery.query(root/"0.png")
        best = [i for i in np.argsort(-every.embeddings @ query.embedding, kind="stable") if every.entries[i].name
                != "0.png"][:10]
        hits = gallery.search(query, 10)
        # all cells are visited here: the answer is exact
        assert [h.name for h in hits] == [every.entries[i].name for i in best]
        assert np.allclose([h.similarity for h in hits], (every.embeddings @ query.embedding)[best], atol=1e-5)
        assert all(np.argmax(h.confidences) == encoder.taxonomy.index(h.emotion) for h in hits)
        monkeypatch.setattr(vector_blocks, "VISITED", 1)
        parts, _ = vector_blocks.candidates(gallery.store._blocks, np.append(query.embedding, np.zeros(8)))
        looked_at = sum(len(ids) for ids, _ in parts)
        assert 0 < looked_at < 80 and gallery.search(query, 1)[0].similarity <= hits[0].similarity + 1e-6
        monkeypatch.setattr(vector_blocks, "VISITED", 32)
        (root/hits[0].name).unlink()
        gallery.update()
        assert gallery.search(query, 10)[0].name == hits[1].name
        shutil.copy(root/hits[1].name, root/"new.png")
        gallery.update()
        assert {"new.png", hits[1].name} <= {h.name for h in gallery.search(query, 3)} and len(
            gallery.search(query, 100)
        ) == 79
        assert [h.similarity for h in gallery.by_emotion("awe", 100)] == sorted(
            (e.confidences[1] for e in gallery), reverse=True)


@pytest.mark.parametrize("kept", [1 << 29, 4000])
def test_what_is_kept_in_memory_is_never_old(kept, tmp_path, monkeypatch):
    """Cells that were read and checked stay in memory, within bounds: the answers are those of a store that has just
    been opened, whoever changes the index meanwhile, and a damaged cell is noticed at its first visit."""
    monkeypatch.setattr(vector_blocks, "EXACT_UP_TO", 10)
    monkeypatch.setattr(vector_blocks, "VISITED", 3)
    monkeypatch.setattr(vector_blocks, "KEPT", kept)
    rng, home = np.random.default_rng(0), tmp_path/"index"
    vectors = rng.normal(size=(300, 18)).astype(np.float32)
    vectors[:, :16] /= np.linalg.norm(vectors[:, :16], axis=1, keepdims=True)
    vectors[:, 16:] = rng.random((300, 2))

    def put(store, numbers):
        store.put([ImageRow(0, b"%d" % i, b"%d" % i, 1, 1, 8, 8, 0) for i in numbers], vectors[numbers], {})

    def answers(store):
        asked = [np.append(v[:16], [0, 0]) for v in vectors[::30]] + [np.append(np.zeros(16), [1, 0])]
        return [[(round(p, 5), row.name, v.round(5).tolist()) for p, row, v in store.nearest(q, 5)] for q in asked]

    with database.indexing(home, 0), Store(home, write=True) as writer:
        writer.create({}, 16, 2)
        put(writer, range(250))
        writer.settle({})
        reader = Store(home)
        first = answers(reader)
        held = sum(reader._blocks.memory.cell_bytes().values())
        assert held <= kept and answers(reader) == first == answers(Store(home)) == answers(writer)
        assert first[-1][0][1] == b"%d" % vectors[:250, 16].argmax()
        with pytest.raises(KeyError), writer._db.changing():              # a change that is taken back
            writer._forget([b"1"])
            raise KeyError
        put(writer, range(250, 300))
        assert answers(reader) != first and answers(reader) == answers(Store(home)) == answers(writer)
        writer.remove([row[1] for answer in first for row in answer])
        assert answers(reader) == answers(Store(home)) == answers(writer)
        assert not {row[1] for answer in first for row in answer} & {row[1] for a in answers(reader) for row in a}
    answers(reader)
    db = sqlite3.connect(home/database.FILE)
    db.execute("UPDATE blocks SET vectors = zeroblob(length(vectors))")
    db.commit()
    db.close()
    with pytest.raises(ValueError, match="vectors have changed"):
        answers(reader)


# ---------------------------------------------------------------- folders as they come
def test_bad_files_are_named_skipped_and_kept_in_a_list(tmp_path, encoder):
    root = folder_of(tmp_path/"a", 2)
    whole = (root/"0.png").read_bytes()
    (root/"cut.png").write_bytes(whole[:len(whole)//2])
    (root/"empty.jpg").write_bytes(b"")
    (root/"text.jpg").write_text("no picture")
    (root/"notes.txt").write_text("no picture, and not called one")
    (root/"dead.png").symlink_to(root/"nowhere.png")
    os.mkfifo(root/"pipe.png")
    (root/"loop").symlink_to(root)
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    (root/"bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n"
                                  + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0))
                                  + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    with open(root/"giant.png", "wb") as f:
        f.truncate(LARGEST_IMAGE + 1)
    result = run(apse_index, root)
    assert result.exit_code == 0 and "2 images: 2 new" in result.stdout and "7 files skipped" in result.stdout
    for words in ("cut.png: it cannot be read as an image", "empty.jpg: it is empty",
                  "text.jpg: it cannot be read as an image (its format is not known)",
                  "dead.png: there is no such file",
                  "pipe.png: it is not a regular file", "bomb.png: it cannot be read as an image (60000 x 60000 are "
                  "too many pixels", "giant.png: it is larger than 512 MB"):
        assert f"skipped: {words}" in result.stdout, result.stdout
    (root/"cut.png").write_bytes(whole)                       # repaired: found again
    with Gallery.create(root, model=encoder) as gallery:
        assert len(gallery.skipped) == 7
        assert gallery.update().copied == ["cut.png"] and len(gallery.skipped) == 6 and len(gallery) == 3


def test_an_image_that_is_searched_can_also_be_trained_on(tmp_path):
    "A PNG may have anything after its end; here zeros, up to the one limit that every reader of images keeps to."
    path = tmp_path/"long.png"
    picture(0).save(path)
    os.truncate(path, 300 << 20)
    searched = records.read_record(tmp_path, "long.png", 8, known=())
    assert np.array_equal(searched.pixels, decode_square(path, 8))
    os.truncate(path, LARGEST_IMAGE + 1)
    for read in (decode_square, lambda path, side: records.read_record(tmp_path, "long.png", side, known=())):
        with pytest.raises(ValueError, match="is larger than 512 MB"):
            read(path, 8)


def test_hostile_names(tmp_path, encoder):
    root = folder_of(tmp_path/"a", names=HOSTILE)
    with Gallery.create(root, model=encoder) as gallery:
        assert sorted(gallery.update().added) == sorted(HOSTILE)
        hits = gallery.search(picture(3), 20)
        assert sorted(h.name for h in hits) == sorted(HOSTILE) and all(h.path.is_file() for h in hits)
        page = result_page(Asked(one_line(HOSTILE[0]), gallery.thumbnail(hits[0])), hits, gallery, ["apse_search"])
        assert gallery.update().unchanged == len(HOSTILE)
    assert "<img src=x" not in page and "<script" not in page and page.encode("utf-8")
    for name in HOSTILE:
        assert one_line(name).isprintable()
        said = subprocess.run(["bash", "-c", f"printf %s {shell_word(name)}"], capture_output=True).stdout
        assert said == os.fsencode(name)
    result = run(apse_search, root/HOSTILE[2], "--folder", root, "--json", "-")
    assert result.exit_code == 0
    found = json.loads(result.stdout)["results"]
    from urllib.parse import unquote_to_bytes, urlparse
    assert all(Path(os.fsdecode(unquote_to_bytes(urlparse(r["uri"]).path))).is_file()
               for r in found) and len(found) == len(HOSTILE) - 1
    assert run(apse_search, "--emotion", "awe", "--folder", root).stdout.count("\n") == len(HOSTILE) + 1


@pytest.mark.parametrize("folder", ["with space", " leading", "quote'\"", "ünïcode 画", "line\nbreak", "a#b?c%41",
                                    "n"*245])
def test_folders_of_any_name(tmp_path, encoder, folder):
    root = folder_of(tmp_path/folder, 2)
    with Gallery.create(root, model=encoder) as gallery:
        gallery.update()
    assert len(snapshot(root/".apse_index")) == 2
    assert run(apse_search, "--emotion", "awe", "--folder", root, "--html", tmp_path/"o.html", "--json",
               tmp_path/"o.json").exit_code == 0


def test_folder_names_are_printed_on_one_line(tmp_path, encoder, monkeypatch):
    "Line breaks and terminal codes of a folder's name are escaped wherever it is printed."
    root = folder_of(tmp_path/"a\n\x1b[31mb", 2)
    (root/"deep\n\x1b[2J").mkdir()
    (root/"a.\n\x1b[2J").write_bytes(b"")
    real = os.scandir

    def scandir(path="."):
        if "deep" in os.path.basename(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    one_sentence(run(apse_search, "--emotion", "awe", "--folder", root), "a\\n\\x1b[31mb nor a folder above it")
    one_sentence(run(apse_index, root/"no\nwhere"), "There is no folder")
    monkeypatch.setattr(os, "scandir", scandir)
    said = run(apse_index, root)
    assert said.exit_code == 1 and "not readable now: deep\\n\\x1b[2J: " in said.stdout
    assert "not images: 1 .\\n\\x1b[2j" in said.stdout and all(map(str.isprintable, said.stdout.splitlines()))
    one_sentence(run(apse_index, tmp_path, "--index", root/".apse_index"), "holds the images of ")
    run(apse_search, "--emotion", "awe", "--folder", root, "--html", tmp_path/"o.html")
    page = (tmp_path/"o.html").read_text()
    assert "a\\n\\x1b[31mb" in page and "\x1b" not in page
    for path in root.glob("*.png"):
        path.unlink()
    one_sentence(run(apse_index, root), "has no images any more")


def test_a_folder_that_is_not_utf8(tmp_path, encoder):
    root = folder_of(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")), 2)
    with Gallery.create(root, tmp_path/"elsewhere", encoder) as gallery:
        assert len(gallery.update().added) == 2 and all(e.path.is_file() for e in gallery)
    assert "2 images: 2 new" in run(apse_index, root).stdout
    assert len(snapshot(root/".apse_index")) == 2


@pytest.mark.parametrize("n", [0, 1])
def test_no_picture_or_one(tmp_path, encoder, n):
    root = folder_of(tmp_path/"a", n)
    assert f"{n} images" in run(apse_index, root).stdout
    result = run(apse_search, "--emotion", "awe", "--folder", root)
    assert result.exit_code == 0 and result.stdout.count("\n") == 1 + n
    picture(5).save(tmp_path/"q.png")
    assert run(apse_search, tmp_path/"q.png", "--folder", root, "--k", 1000, "--html", tmp_path/"o.html").exit_code == 0
    with Gallery.open(root/".apse_index") as gallery:
        assert gallery.contents().embeddings.shape == (n, encoder.dim)


def test_a_missing_disk_does_not_empty_the_index(tmp_path, encoder):
    root = folder_of(tmp_path/"a", 2)
    with Gallery.create(root, tmp_path/"i", encoder) as gallery:
        gallery.update()
        for path in root.iterdir():
            path.unlink()
        with pytest.raises(ValueError, match="is a disk missing"):
            gallery.update()
        assert len(gallery) == 2


def test_folder_and_index_move_together(tmp_path, encoder):
    root = folder_of(tmp_path/"a", 3)
    with Gallery.create(root, model=encoder) as gallery:
        gallery.update()
    root.rename(tmp_path/"b")
    with Gallery.create(tmp_path/"b", model=encoder) as gallery:
        assert gallery.update().unchanged == 3 and all(e.path.is_file() for e in gallery)


def test_thumbnails_tell_nothing(tmp_path, encoder):
    root = tmp_path/"a"
    root.mkdir()
    exif = Image.Exif()
    exif[0x0112], exif[0x010e], exif.get_ifd(0x8825)[1] = 6, "SECRET", "N"
    picture(1, (60, 40)).save(root/"a.jpg", exif=exif, comment=b"SECRET")
    with Gallery.create(root, model=encoder) as gallery:
        gallery.update()
        (entry,) = gallery
        data = gallery.thumbnail(entry)
    assert b"SECRET" not in data and b"Exif" not in data and (entry.width, entry.height) == (40, 60)
    assert (
        Image.open(io.BytesIO(data)).size == (40, 60)
        and b"SECRET" not in (root / ".apse_index" / database.FILE).read_bytes()
    )


# ---------------------------------------------------------------- models and versions
def test_another_model_is_refused_and_rebuild_helps(tmp_path, encoder):
    from apse_nb.network import APSE
    from apse_nb.training import Recipe, save_model
    from dataclasses import asdict
    root, mine = folder_of(tmp_path/"a", 3), tmp_path/"mine.safetensors"
    with Gallery.create(root, model=encoder) as gallery:
        gallery.update()
    save_model(APSE(backbone="scene_net", weights="shapes", dim=16, pooling="low_rank", heads="none", attend="none"),
               mine, recipe=asdict(Recipe.scenes()))
    one_sentence(run(apse_index, root, "--model", mine), "index again with apse_index --rebuild")
    one_sentence(run(apse_search, root/"0.png", "--folder", root, "--model", mine),
                 "vectors of two models cannot be compared")
    assert "3 new" in run(apse_index, root, "--model", mine, "--rebuild").stdout
    assert run(apse_index, root).stdout.startswith("3 images: 0 new")  # the index remembers its model
    one_sentence(run(apse_search, "--emotion", "awe", "--folder", root), "knows no emotions")
    assert run(apse_search, root/"0.png", "--folder", root).exit_code == 0
    mine.unlink()
    assert run(apse_search, root/"0.png", "--folder", root).exit_code == 0       # it is in the index: no model needed
    picture(99).save(tmp_path/"other.png")
    one_sentence(run(apse_search, tmp_path/"other.png", "--folder", root), "There is no checkpoint")


def test_imagenet_weights(tmp_path, monkeypatch):
    from apse_nb import backbones
    # random ones: nothing is downloaded here
    monkeypatch.setattr(backbones, "load_imagenet", lambda module, name: module)
    root = folder_of(tmp_path/"a", 2)
    with Gallery.create(root, model="imagenet:resnet18") as gallery:
        assert len(gallery.update().added) == 2 and gallery.taxonomy is None and gallery.encoder.dim == 512
        assert len(gallery.search(root/"0.png")) == 1

    def offline(module, name):
        raise FileNotFoundError("The ImageNet weights of resnet18 could not be downloaded (no network): convert x to "
                                "safetensors where there is a connection.")
    monkeypatch.setattr(backbones, "load_imagenet", offline)
    one_sentence(run(apse_index, root, "--model", "imagenet", "--rebuild"), "could not be downloaded (no network); go "
                 "online once, name a file with apse_index --weights, or give --model a checkpoint")
    assert len(snapshot(root/".apse_index")) == 2  # what was there is still there


def test_an_index_of_another_version(tmp_path, encoder):
    root = folder_of(tmp_path/"a", 2)
    with Gallery.create(root, model=encoder) as gallery:
        gallery.update()
    with sqlite3.connect(root/".apse_index"/database.FILE) as db:
        db.execute("ALTER TABLE images ADD COLUMN colour TEXT")
    db.close()
    one_sentence(run(apse_index, root), "another version")
    one_sentence(run(apse_search, "--emotion", "awe", "--folder", root), "--rebuild")
    assert "2 new" in run(apse_index, root, "--rebuild").stdout


def test_a_damaged_index_is_rebuilt(tmp_path, encoder):
    root = folder_of(tmp_path/"a", 2)
    with Gallery.create(root, model=encoder) as gallery:
        gallery.update()
    file = root/".apse_index"/database.FILE
    file.write_bytes(file.read_bytes()[:40_000])
    one_sentence(run(apse_index, root), "run apse_index with --rebuild")
    assert "2 new" in run(apse_index, root, "--rebuild").stdout and len(snapshot(root/".apse_index")) == 2


def test_a_foreign_folder_is_left_alone(tmp_path, encoder):
    foreign = tmp_path/"db"/database.FILE
    foreign.parent.mkdir()
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE precious(x)")
    db.close()
    before = foreign.read_bytes()
    for rebuild in (False, True):
        with pytest.raises(ValueError, match="was not made by apse_index"):
            Gallery.create(folder_of(tmp_path/"a"), tmp_path/"db", encoder, rebuild)
    assert foreign.read_bytes() == before


class Diverged:
    "An encoder whose network has been ruined in training."
    source, weights, fingerprint, dim, taxonomy, resize = "runs/ruined.safetensors", None, "0"*64, 4, None, 96

    def __call__(self, pixels):
        return np.full((len(pixels), 4), np.nan, np.float32), None


def test_a_network_that_makes_no_numbers(tmp_path):
    "Its images would be in the index and never be found."
    with Gallery.create(folder_of(tmp_path/"a", 2), model=Diverged()) as gallery:
        for ask in (gallery.update, lambda: gallery.search(picture(1))):
            with pytest.raises(ValueError, match="runs/ruined.safetensors makes numbers that are not finite"):
                ask()
        assert len(gallery) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("many", [False, True])
def test_a_similarity_that_is_no_number_is_not_sorted(tmp_path, monkeypatch, value, many):
    "Whatever is asked for: an order of such numbers would be an accident."
    monkeypatch.setattr(vector_blocks, "EXACT_UP_TO", 10 if many else 100)
    vectors = np.random.default_rng(0).random((40, 6)).astype(np.float32)
    vectors[7] = value
    with database.indexing(tmp_path, 0), Store(tmp_path, write=True) as store:
        store.create({}, 4, 2)
        store.put([ImageRow(0, b"%d" % i, b"%d" % i, 1, 1, 8, 8, 0) for i in range(40)], vectors, {})
        for query in ([1, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0], [1, 1, 1, 1, 1, 1]):
            with pytest.raises(ValueError, match="vectors are not finite.* --rebuild"):
                store.nearest(np.array(query), 3)


# ---------------------------------------------------------------- places that refuse
def test_a_place_that_cannot_be_written(tmp_path, encoder, monkeypatch):
    root, real = folder_of(tmp_path/"a", 2), Path.mkdir

    def mkdir(self, *args, **kwargs):
        if self.name == ".apse_index":
            raise OSError(30, "Read-only file system", str(self))
        return real(self, *args, **kwargs)
    monkeypatch.setattr(Path, "mkdir", mkdir)
    one_sentence(run(apse_index, root), "(Read-only file system): give another place with --index")
    assert "2 new" in run(apse_index, root, "--index", tmp_path/"elsewhere").stdout


@pytest.mark.parametrize("kilobytes", [100, 600])
def test_a_full_disk(tmp_path, kilobytes):
    """No file may grow beyond so much, which the system reports like a full disk: too little for an empty index, or for
    its second batch. One sentence, a search with what is there, and afterwards the index resumes."""
    root = folder_of(tmp_path/"a", 150)
    code = "import sys; from apse_nb.search.commands import apse_index; apse_index([sys.argv[1]])"
    limited = subprocess.run(["bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "bash", sys.executable, "-c", code,
                              str(root)], capture_output=True, text=True)
    assert (
        limited.returncode == 2
        and "The disk is full" in limited.stderr.splitlines()[-1]
        and "Traceback" not in limited.stderr
    ), limited.stderr[-1500:]
    if kilobytes > 100:
        assert "awe" in run(apse_search, "--emotion", "awe", "--folder", root).stdout
    assert "150 images" in run(apse_index, root).stdout and len(snapshot(root/".apse_index")) == 150


def test_the_page_on_a_full_disk(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    root = folder_of(tmp_path/"a", 2)
    run(apse_index, root)
    one_sentence(run(apse_search, "--emotion", "awe", "--folder", root, "--html", "/dev/full"), "The disk is full")


# ---------------------------------------------------------------- the commands
@pytest.mark.parametrize("command, arguments, words", [
    (apse_index, ["/nowhere"], "There is no folder /nowhere"), (apse_index, [], "Missing argument"),
                                                       (apse_search, ["--emotion", "awe", "--folder", "/proc"],
                                                        "make one with apse_index"),
    (apse_search, ["--emotion", "awe", "--index", "/nowhere"], "There is no index /nowhere"),
                                                       (apse_search, [], "Give either an IMAGE or --emotion"),
                                                       (apse_search, ["x.png", "--emotion", "awe"], "Give either"),
    (apse_search, ["x.png", "--k", "0"], "--k")])
def test_wrong_arguments_are_one_line(command, arguments, words):
    one_sentence(run(command, *arguments), words)


def test_questions_to_an_index(tmp_path):
    root = folder_of(tmp_path/"a", 4)
    first = run(apse_index, root)
    assert "4 images: 4 new" in first.stdout and first.stderr.count("\n") == 1 and "is a demo" in first.stderr
    one_sentence(run(apse_search, "--emotion", "awee", "--folder", root), "Did you mean 'awe'?")
    one_sentence(run(apse_search, tmp_path/"none.png", "--folder", root), "There is no image")
    (tmp_path/"bad.png").write_text("x")
    one_sentence(run(apse_search, tmp_path/"bad.png", "--folder", root), "its format is not known")
    one_sentence(run(apse_search, "--emotion", 'awe" or key != "', "--folder", root), "Unknown label")
    (root/"deep").mkdir()
    # an index above will do
    result = run(apse_search, root/"0.png", "--folder", root/"deep", "--k", 2, "--html", tmp_path/"o.html", "--json",
                 tmp_path/"o.json")
    assert (
        result.exit_code == 0
        and len(json.loads((tmp_path / "o.json").read_text())["results"]) == 2
        and (tmp_path / "o.html").read_text().count("<li><a") == 2
    )


@pytest.mark.parametrize("flag", ["--html", "--json"])
def test_results_take_the_place_of_results_only(tmp_path, flag):
    "`--html beach.jpg` does not cost the photograph; a page of an earlier search may go, and an empty file."
    root, out = folder_of(tmp_path/"a", 3), tmp_path/"out"
    run(apse_index, root)
    before = (root/"1.png").read_bytes()
    one_sentence(run(apse_search, "--emotion", "awe", "--folder", root, flag, root/"1.png"),
                 "was not written by apse_search: give another name")
    assert (root/"1.png").read_bytes() == before
    out.touch()
    for emotion in ("awe", "fear"):
        assert run(apse_search, "--emotion", emotion, "--folder", root, flag, out).exit_code == 0
        assert emotion in out.read_text()
    other = {"--html": "--json", "--json": "--html"}[flag]
    one_sentence(run(apse_search, "--emotion", "awe", "--folder", root, other, out), "was not written by apse_search")


def test_open_shows_the_page(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(commands, "_open_page", shown.append)
    run(apse_index, folder_of(tmp_path/"a", 2))
    assert run(apse_search, "--emotion", "awe", "--folder", tmp_path/"a",
               "--open").exit_code == 0 and shown[0].read_text().startswith("<!doctype html>")


def test_interrupt_keeps_what_is_done(tmp_path):
    root = folder_of(tmp_path/"a", 12)
    code = ("import os, signal, sys, apse_nb.search.gallery as r; r.AT_ONCE, real = 4, r.Store.put\n"
            "from apse_nb.search.commands import apse_index\n"
            "def put(self, *rows): real(self, *rows); os.kill(os.getpid(), signal.SIGINT)\n"
            "r.Store.put = put; sys.argv = ['apse_index', sys.argv[1]]; apse_index()")
    stopped = subprocess.run([sys.executable, "-c", code, str(root)], capture_output=True, text=True)
    assert (
        stopped.returncode == 130 and "Traceback" not in stopped.stderr and "finished work is kept" in stopped.stderr
    ), stopped.stderr[-1500:]
    assert 4 <= int(run(apse_index, root).stdout.split(" as before")[0].split(", ")[-1])


def test_a_search_in_the_index_needs_no_network(tmp_path):
    "PyTorch alone takes a second or more to import; nor is it needed for an image that the index holds."
    root = folder_of(tmp_path/"a", 4)
    run(apse_index, root)
    code = ("import sys; from apse_nb.search.commands import apse_search\n"
            "apse_search(sys.argv[1:], standalone_mode=False)\n"
            "print([m for m in ('torch', 'torchvision', 'scipy', 'matplotlib', 'pandas') if m in sys.modules])")
    for words in (["--emotion", "awe"], [root/"0.png", "--html", tmp_path/"o.html", "--json", tmp_path/"o.json"]):
        said = subprocess.run([sys.executable, "-c", code, *map(str, words), "--folder", str(root)],
                              capture_output=True, text=True)
        assert said.stdout.count(".png") >= 3 and said.stdout.splitlines()[-1] == "[]", said.stderr[-1500:]
