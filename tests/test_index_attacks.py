"""Other people's folders and broken disks: links, traps, flipped bits, files that come and go. Nothing outside an index
is touched, and no answer is wrong without a word. `APSE_FLIPS=300 pytest tests/test_index_attacks.py` tries more
bits."""
import errno
import json
import os
import random
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import run
from PIL import Image

from apse_nb.datasets.readers import open_dataset
from apse_nb.scenes import make_scenes, save_scenes
from apse_nb.search import records
from apse_nb.search.commands import apse_index, apse_search
from apse_nb.search.database import FILE, seal_of
from apse_nb.search.gallery import Gallery
from apse_nb.search.results import Asked, result_page
from apse_nb.search.teach import labels_from_folders
from apse_nb.tools.files import RefusedFile
from apse_nb.widgets.browser import query_by_image, query_by_position
from apse_nb.widgets.collection import Collection, nearest_images
from test_retrieval import picture as image
from test_training import changed, places


@pytest.fixture(scope="module")
def template(tmp_path_factory, encoder):
    "A folder of 20 images with its index, to be copied."
    root = tmp_path_factory.mktemp("template")/"a"
    root.mkdir()
    for i in range(20):
        image(i).save(root/f"{i:02d}.png")
    with Gallery.create(root, model=encoder) as gallery:
        gallery.update()
    return root


@pytest.fixture
def root(template, tmp_path):
    return Path(shutil.copytree(template, tmp_path/"a"))


# ---------------------------------------------------------------- a folder that a stranger packed
@pytest.mark.parametrize("name", [FILE, f"{FILE}-journal", f"{FILE}-wal", f"{FILE}-shm", "lock", "holder.json"])
@pytest.mark.parametrize("kind", ["link", "dead link", "pipe"])
def test_links_inside_an_index_are_not_followed(root, tmp_path, name, kind):
    precious, place = tmp_path/"precious", root/".apse_index"/name
    precious.write_bytes(b"do not touch")
    place.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(precious if kind == "link" else tmp_path/"nowhere")
    for command in ([apse_index, root], [apse_index, root, "--rebuild"],
                    [apse_search, "--emotion", "awe", "--index", root/".apse_index"]):
        result = run(*command)
        assert (
            result.exit_code == 2 and "is not a file that apse_index wrote: remove it" in result.stderr
        ), result.output
    assert precious.read_bytes() == b"do not touch" and not (tmp_path/"nowhere").exists()


def test_an_index_that_is_a_link(root, tmp_path):
    shutil.move(root/".apse_index", tmp_path/"elsewhere")
    (root/".apse_index").symlink_to(tmp_path/"elsewhere")
    before = (tmp_path/"elsewhere"/FILE).read_bytes()
    result = run(apse_index, root, "--rebuild")
    assert result.exit_code == 2 and "is a link" in result.stderr and (tmp_path/"elsewhere"/FILE).read_bytes() == before


def test_a_journal_that_names_a_file_to_delete(root, tmp_path):
    """SQLite deletes the super-journal that a journal names, if nothing points back from it. It is shown first that it
    would, so that this test cannot pass for want of a trap."""
    def trap(folder):
        precious = folder/"precious"
        precious.write_bytes(b"no journal")
        name = os.fsencode(precious)
        database = (folder/FILE).read_bytes()
        page = int.from_bytes(database[16:18], "big")
        header = (bytes.fromhex("d9d505f920a163d7") + (0).to_bytes(4, "big") + bytes(4)
                  + (len(database)//page).to_bytes(4, "big") + (512).to_bytes(4, "big") + page.to_bytes(4, "big"))
        end = ((1 << 30)//page + 1).to_bytes(4, "big") + name + len(name).to_bytes(4, "big")
        end += (sum(b - 256 * (b > 127) for b in name) & 0xFFFFFFFF).to_bytes(4, "big") + bytes.fromhex(
            "d9d505f920a163d7"
        )
        (folder/f"{FILE}-journal").write_bytes(header.ljust(512, b"\0") + end)
        return precious

    shutil.copytree(root/".apse_index", tmp_path/"open")
    precious = trap(tmp_path/"open")
    db = sqlite3.connect(tmp_path/"open"/FILE)
    db.execute("SELECT count(*) FROM images").fetchall()
    db.close()
    assert not precious.exists()
    precious = trap(root/".apse_index")
    for command in (
        [apse_index, root],
        [apse_index, root, "--rebuild"],
        [apse_search, "--emotion", "awe", "--folder", root],
    ):
        result = run(*command)
        assert result.exit_code == 2 and "names another file to delete" in result.stderr, result.output
    assert precious.exists()


def test_only_our_own_files_are_deleted(root):
    "Whatever else lies in an index folder stays, also when it is rebuilt."
    inside = root/".apse_index"/".thumbnails"/"ab"
    inside.mkdir(parents=True)
    (inside/"x.jpg").write_bytes(b"mine")
    assert run(apse_index, root, "--rebuild").exit_code == 0 and (inside/"x.jpg").read_bytes() == b"mine"


def change(root, sql, *values):
    db = sqlite3.connect(root/".apse_index"/FILE)
    db.execute(sql, values)
    db.commit()
    db.close()


@pytest.mark.parametrize("sql", ["CREATE TRIGGER t AFTER INSERT ON images BEGIN DELETE FROM images; END",
                                 "CREATE VIEW v AS SELECT * FROM images", "CREATE TABLE more(x)"])
def test_tables_that_are_not_ours(root, sql):
    change(root, sql)
    assert "--rebuild" in run(apse_search, "--emotion", "awe", "--folder", root).stderr


TOTALS = ({}, [], None, 5, {"images": [0, 0]}, {"images": "x", "cells": {}}, {"images": [12]}, {"images": [12, 1],
          "cells": [1, 2]}, {"images": [10**12, 0], "cells": {"0": [10**12, 0]}}, {"images": [12, .5], "cells": {}})


@pytest.mark.parametrize("many", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_tampered_facts_are_one_sentence(root, many):
    "Whoever changes what an index says about itself can also mend the seals: it is refused, or it makes no difference."
    def write(name, value):
        (root/".apse_index"/FILE).write_bytes(whole)
        value = value if isinstance(value, bytes) else json.dumps(value).encode()
        change(root, "INSERT OR REPLACE INTO facts VALUES(?, ?, ?)", name, value, seal_of(name, value))

    with Gallery.open(root/".apse_index") as gallery:
        facts, query = gallery.store.facts | dict(head=dict(weight=[[0.]*8]*128, bias=[0.]*8, images=20, accuracy=.5,
                                                      chance=.2)), gallery.store.rows()[3]
    whole, rng = (root/".apse_index"/FILE).read_bytes(), random.Random(0)
    odd = [None, [], {}, "", "x", -1, 0, 10**8, 1e300, True, [[]], {"a": 1}, "/etc/passwd", float("nan"), 2**63]
    at = [place for place in places(facts) if len(place) < 4]           # not every number of the head
    todo = [("index", changed(facts, place, rng.random(), rng.choice(odd)))
            for place in (rng.choices(at, k=900) if many else rng.sample(at, 30))]
    todo += [("index", b) for b in (b"\xff", b"[1]", b"null", b"["*100_000)] + [("totals", t) for t in TOTALS]
    said = 0
    for name, value in [*todo, ("centres", b"xyz")]:
        write(name, value)
        try:
            with Gallery.open(root/".apse_index") as gallery:
                assert len(gallery.by_emotion("awe", 3)) == 3 and gallery.query(root/"03.png").digest == query.digest
                result_page(Asked("x"), gallery.search(np.ones(128), 3), gallery, ["apse_search"])
        except (ValueError, FileNotFoundError) as e:
            said += 1
            assert len(str(e).splitlines()) == 1 and len(str(e)) < 900, e
    assert said > len(todo)/2


@pytest.mark.parametrize("column, value", [("name", "03.png"), ("name", None), ("digest", None), ("width", "<b>"),
                                           ("block", "x")])
def test_rows_of_the_wrong_kind_with_right_seals(root, column, value):
    db = sqlite3.connect(root/".apse_index"/FILE)
    for row in db.execute("SELECT id, name, digest, size, mtime, width, height FROM images").fetchall():
        columns = dict(zip(("id", "name", "digest", "size", "mtime", "width", "height"), row)) | {column: value}
        seal = seal_of(*list(columns.values())[:7])
        if row[0] == 4:
            db.execute(f"UPDATE images SET {column} = ?, seal = ? WHERE id = 4", (value, seal))
    db.commit()
    db.close()
    result = run(apse_search, "--emotion", "awe", "--folder", root, "--k", 20)
    assert result.exit_code == 2 and "--rebuild" in result.stderr, result.output


def test_hostile_facts_do_not_reach_the_page(root, encoder):
    "A palette is six digits, an emotion's name is text."
    with Gallery.open(root/".apse_index", encoder) as gallery:
        palette = ("red;}</style><meta http-equiv=refresh content='0;http://127.0.0.1:1'>",)*8
        object.__setattr__(gallery.taxonomy, "palette", palette)
        object.__setattr__(gallery.taxonomy, "fine", ("\x1b[31m<b>awe</b>\x07",)*8)
        hits = gallery.search(np.ones(encoder.dim), 3)
        page = result_page(Asked("x"), hits, gallery, ["apse_search"])
    assert "<meta http-equiv=refresh" not in page and "<b>" not in page and "\x1b" not in page and "\x07" not in page


# ---------------------------------------------------------------- a disk that lies
def answers(root, query):
    with Gallery.open(root/".apse_index") as gallery:
        hits = gallery.search(query, 5) + gallery.by_emotion("awe", 5)
        return [(h.name, h.similarity, h.emotion, h.width, h.digest) for h in hits] + [len(gallery.contents().entries)]


def test_flipped_bits_never_change_an_answer(template, root, encoder):
    "For each: the right answer, or one sentence."
    with Gallery.open(template/".apse_index") as gallery:
        query = gallery.contents().embeddings[3]
    true, file = answers(template, query), root/".apse_index"/FILE
    content, rng = file.read_bytes(), np.random.default_rng(0)
    said = same = 0
    for flip in range(int(os.environ.get("APSE_FLIPS", 80))):
        damaged = bytearray(content)
        place = int(rng.integers(100)) if flip % 4 == 0 else int(rng.integers(len(content)))   # the header, or anywhere
        damaged[place] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        try:
            assert answers(root, query) == true, f"byte {place}"
            same += 1
        except (ValueError, FileNotFoundError) as e:
            assert "apse_index" in str(e) and len(str(e).splitlines()) == 1, e
            said += 1
    assert said and same


@pytest.mark.parametrize("part", ["images", "blocks", "facts"])
def test_rows_that_vanish_are_missed(root, part):
    change(root, f"DELETE FROM {part} WHERE rowid = (SELECT max(rowid) FROM {part})")
    result = run(apse_index, root)
    searched = run(apse_search, "--emotion", "awe", "--folder", root)
    assert "--rebuild" in searched.stderr + result.stderr and 2 in (searched.exit_code, result.exit_code)
    assert run(apse_index, root, "--rebuild").exit_code == 0


def test_a_vector_that_was_changed_is_not_compared(root):
    db = sqlite3.connect(root/".apse_index"/FILE)
    ((vectors,),) = db.execute("SELECT vectors FROM blocks").fetchall()
    changed = bytearray(vectors)
    changed[1000] ^= 64
    db.close()
    change(root, "UPDATE blocks SET vectors = ?", bytes(changed))
    result = run(apse_search, "--emotion", "awe", "--folder", root)
    assert result.exit_code == 2 and "vectors have changed" in result.stderr and "--rebuild" in result.stderr


# ---------------------------------------------------------------- files that cannot be read just now
def test_what_cannot_be_read_now_is_kept(root, monkeypatch):
    "A network drive stumbles: the row stays, the exit status says so, and the next run reads it."
    (root/"new.png").write_bytes((root/"00.png").read_bytes() + b" ")
    for name in ("01.png", "02.png"):
        image(50 + int(name[:2])).save(root/name)
    real = records.read_regular

    def stumbling(path, *args):
        if str(path).endswith(("01.png", "new.png")):
            raise RefusedFile(f"cannot be read ({os.strerror(errno.EIO)})")
        return real(path, *args)
    monkeypatch.setattr(records, "read_regular", stumbling)
    result = run(apse_index, root)
    assert result.exit_code == 1 and "not readable now: 01.png: it cannot be read (Input/output error)" in result.stdout
    assert "20 images: 0 new, 1 changed" in result.stdout and "0 removed" in result.stdout
    monkeypatch.undo()
    result = run(apse_index, root)
    assert result.exit_code == 0 and "21 images: 1 new, 1 changed" in result.stdout


def test_a_folder_that_is_closed_is_kept(root, monkeypatch):
    (root/"deep").mkdir()
    shutil.copy(root/"03.png", root/"deep"/"x.png")
    assert "21 images" in run(apse_index, root).stdout
    real = os.scandir

    def scandir(path="."):
        if str(path).endswith("deep"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)
    monkeypatch.setattr(os, "scandir", scandir)
    result = run(apse_index, root)
    assert result.exit_code == 1 and "21 images" in result.stdout and "0 removed" in result.stdout


def test_what_other_programs_leave_in_folders(root):
    for name in ("@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "__MACOSX"):
        (root/name).mkdir()
        image(5).save(root/name/"thumb.png")
    (root/"notes.heic").write_bytes(b"")
    said = run(apse_index, root).stdout
    assert "20 images: 0 new" in said and "not images: 1 .heic" in said
    assert "left out: 1 folder #recycle, 1 folder $RECYCLE.BIN, 1 folder @eaDir, 1 folder __MACOSX" in said
    assert ".apse_index" not in said


def test_what_the_user_excludes_stays_out(root):
    (root/"raw").mkdir()
    image(5).save(root/"raw"/"a.png")
    said = run(apse_index, root, "--exclude", "raw", "--exclude", "1?.png").stdout
    assert "10 images: 0 new" in said and "10 removed" in said
    assert "left out: 10 called 1?.png, 1 called raw" in said
    assert "10 images: 0 new" in run(apse_index, root).stdout                        # it is remembered
    assert "21 images: 10 new, 0 changed, 1 moved" in run(apse_index, root, "--exclude", "").stdout


def test_masks_of_scenes_are_no_images(tmp_path):
    "`save_scenes` writes a mask beside every image; an album of carnival masks is one of images."
    save_scenes(make_scenes(8, size=64, seed=0, workers=1), tmp_path/"deep"/"scenes")
    (tmp_path/"masks").mkdir()
    image(1).save(tmp_path/"masks"/"venice.png")
    result = run(apse_index, tmp_path)
    assert "9 images: 9 new" in result.stdout and "left out: 8 masks of images" in result.stdout, result.output
    assert "8 images: 8 new" in run(apse_index, tmp_path/"deep"/"scenes"/"masks", "--model", "scenes").stdout


# ---------------------------------------------------------------- queries of every kind
def test_one_road_for_every_kind_of_query(tmp_path, encoder):
    "A file, its bytes, a Pillow image and an array of the same image give the same embedding."
    with Gallery.create(_empty(tmp_path), model=encoder) as gallery:
        rng = np.random.default_rng(0)
        small = image(3, (64, 48))
        exif = Image.Exif()
        exif[0x0112] = 6
        made = {"plain.png": small, "grey.png": small.convert("L"), "palette.png": small.convert("P"),
                "alpha.png": Image.fromarray(np.dstack([np.asarray(small), rng.integers(0, 255, (48, 64), np.uint8)])),
                "deep.png": Image.fromarray(np.asarray(small.convert("L")).astype(np.uint16)*257)}
        for name, one in made.items():
            one.save(tmp_path/name)
        small.save(tmp_path/"turned.jpg", exif=exif)
        for path in [*(tmp_path/name for name in made), tmp_path/"turned.jpg"]:
            true = gallery.query(path).embedding
            upright = np.asarray(records.as_image(Image.open(path)))
            kinds = [os.fspath(path), path.read_bytes(), Image.open(path), upright]
            if path.name in ("alpha.png", "grey.png", "deep.png"):
                kinds.append(np.asarray(made[path.name]))
            # 3 x H x W, as torchvision reads it
            kinds.append(torch.from_numpy(upright.copy()).permute(2, 0, 1))
            for kind in kinds:
                assert np.allclose(gallery.query(kind).embedding, true, atol=1e-5), (path.name, type(kind))


def _empty(tmp_path):
    (tmp_path/"empty").mkdir()
    return tmp_path/"empty"


def test_vectors_and_what_is_refused(root, encoder):
    with Gallery.open(root/".apse_index", encoder) as gallery:
        v = gallery.contents().embeddings[7]
        true = [(h.name, round(h.similarity, 5)) for h in gallery.search(v)]
        assert true[0] == ("07.png", 1.0)
        for same in (
            10 * v,
            v.tolist(),
            v[None],
            torch.from_numpy(v.copy()),
            torch.from_numpy(v.copy())[None],
            v.astype(float),
        ):
            assert [(h.name, round(h.similarity, 5)) for h in gallery.search(same)] == true
        pixels = np.zeros((20, 30, 3), np.uint8)
        for wrong, words in (
            (0 * v, "not all zero"),
            (v * np.nan, "finite"),
            (v[:5], "128 finite numbers"),
            (np.stack([v, v]), "One query at a time"),
            (pixels[None], "One query at a time"),
            (pixels / 255, "uint8"),
            (pixels.transpose(2, 0, 1), "height x width x 3"),
            (None, "NoneType"),
            (torch.zeros(2, 3, 8, 8), "One query at a time"),
            (b"no image", "its format is not known"),
            ([Image.new("RGB", (8, 8))] * 2, "not a list"),
        ):
            with pytest.raises(ValueError, match=words):
                gallery.search(wrong)


# ---------------------------------------------------------------- the default network
def test_photographs_are_not_indexed_with_the_network_for_drawings(tmp_path):
    skimage = pytest.importorskip("skimage.data")
    (tmp_path/"p").mkdir()
    for name in ("astronaut", "chelsea", "coffee"):
        Image.fromarray(getattr(skimage, name)()).save(tmp_path/"p"/f"{name}.jpg")
    result = run(apse_index, tmp_path/"p")
    assert (
        result.exit_code == 2
        and "do not look like the drawn scenes" in result.stderr
        and "--model imagenet" in result.stderr
    )
    assert not (tmp_path/"p"/".apse_index").exists()
    result = run(apse_index, tmp_path/"p", "--model", "scenes")
    assert result.exit_code == 0 and "is a demo" in result.stderr
    assert run(apse_index, tmp_path/"p").exit_code == 0                # once it is made, the index has its model


def test_json_is_as_described(root):
    answer = json.loads(run(apse_search, root/"05.png", "--folder", root, "--json", "-", "--k", 3).stdout)
    described = run(apse_search, "--help").output
    fields = {*answer, *answer["results"][0], *answer["model"]}
    assert len(answer["results"]) == 3 and all(name in described for name in fields), fields


# ---------------------------------------------------------------- teaching
def test_an_index_is_taught_by_its_folders(tmp_path):
    "Bright images are awe, dark ones fear: learnt from labelled folders, the head judges all others, also new ones."
    def save(path, seed, bright):
        path.parent.mkdir(parents=True, exist_ok=True)
        light = np.asarray(image(seed)).astype(int)//3 + (160 if bright else 0)
        Image.fromarray(light.astype(np.uint8)).save(path)

    root = tmp_path/"a"
    for i in range(12):
        save(root/"awe"/f"{i}.png", i, True)
        save(root/"Fear"/f"{i}.png", 100 + i, False)
        save(root/"others"/f"bright{i}.png", 200 + i, True)
        save(root/"others"/f"dark{i}.png", 300 + i, False)
    result = run(apse_index, root, "--teach")
    assert result.exit_code == 0 and "taught by 24 labelled images" in result.stdout, result.output
    run(apse_search, "--emotion", "awe", "--folder", root, "--html", tmp_path/"o.html")
    assert "with emotions taught by 24 labelled images" in (tmp_path/"o.html").read_text()
    for i in range(12, 15):
        save(root/"others"/f"bright{i}.png", 200 + i, True)
    assert "3 new" in run(apse_index, root).stdout                                  # judged by the same head
    found = json.loads(run(apse_search, "--emotion", "awe", "--folder", root, "--k", 60, "--json", "-").stdout)[
        "results"
    ]
    light = [f["name"].startswith("awe/") or "bright" in f["name"] for f in found]
    assert len(found) == 51 and np.mean(light[:27]) > .9, [f["name"] for f in found[:27]]
    asked = run(apse_search, root/"others"/"dark3.png", "--folder", root, "--k", 10, "--json", "-")
    results = json.loads(asked.stdout)["results"]
    assert np.mean(["dark" in r["name"] or r["name"].startswith("Fear") for r in results]) > .8
    assert run(apse_search, "--emotion", "positive", "--folder", root).exit_code == 0
    query = root/"others"/"dark3.png"                      # the explorer finds what the command finds
    with Gallery.open(root/".apse_index") as gallery:
        hits, collection = gallery.search(query, 10), Collection.from_gallery(gallery)
        for asked in (query_by_position(collection, collection.names.index("others/dark3.png")),
                      query_by_image(collection, gallery.encoder, query.read_bytes(), query.name)):
            others = np.array([name != "others/dark3.png" for name in collection.names])
            places, similarity = nearest_images(collection, asked.similarity, 10, others)
            assert [collection.names[i] for i in places] == [hit.name for hit in hits]
            assert np.allclose(similarity, [hit.similarity for hit in hits], atol=1e-5)


def test_one_rule_for_folders_in_folders(tmp_path, encoder):
    "fear/awe/2.png is fear to whoever trains on the folder, to --teach and to the explorer."
    names = ["awe/fear/0.png", "fear/1.png", "fear/awe/2.png"]
    for i, name in enumerate(names):
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
        image(i).save(tmp_path/name)
    read = open_dataset(tmp_path)
    assert read.names == names and [read.taxonomy.fine[label] for label in read.labels] == ["awe", "fear", "fear"]
    assert labels_from_folders(names)[1].tolist() == read.labels.tolist()
    with Gallery.create(tmp_path, model=encoder) as gallery:
        gallery.update()
        collection = Collection.from_gallery(gallery)
    assert collection.names == names and collection.labels.tolist() == read.labels.tolist()


def test_teaching_needs_labels(root):
    result = run(apse_index, root, "--teach")
    assert result.exit_code == 2 and "Fewer than two folders are called like an emotion" in result.stderr
