"""Data sets: every kind of bad file, and the command line (what a notebook cannot test well)."""
import errno
import io
import json
import os
import subprocess
import sys
import warnings
from dataclasses import asdict

import click
import numpy as np
import pytest
from click.testing import CliRunner
from conftest import run
from PIL import Image

from apse_nb import images as datasets
from apse_nb.datasets.checks import check_data
from apse_nb.datasets.commands import apse_check_data
from apse_nb.datasets.decoding import decode, load_images
from apse_nb.datasets.readers import open_dataset, save_split
from apse_nb.images import ImageFiles, decode_bytes, read_image
from apse_nb.tools.cli import OneLineErrors
from apse_nb.tools.files import RefusedFile
from apse_nb.emotions import EKMAN, MIKELS, find_taxonomy

RAMP = np.linspace(0, 255, 40*60).reshape(40, 60).astype(np.uint8)
COLOUR = np.stack([RAMP, RAMP[::-1], np.full_like(RAMP, 90)], axis=-1)


def folder_of(root, classes=("awe", "fear"), per_class=4):
    "A class folder of small PNGs that all differ."
    for c, emotion in enumerate(classes):
        (root/emotion).mkdir(parents=True)
        for i in range(per_class):
            Image.fromarray(np.roll(COLOUR, 7*i + 3*c, axis=1)).save(root/emotion/f"{i}.png")
    return root


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def turned(path):
    Image.fromarray(COLOUR).transpose(Image.Transpose.ROTATE_90).save(path, quality=95, exif=exif(6))
def cmyk(path):
    Image.fromarray(COLOUR).convert("CMYK").save(path, quality=95)
def grey16(path):
    Image.fromarray(RAMP.astype(np.uint16)*257).save(path)
def grey32(path):
    Image.fromarray(RAMP.astype(np.int32)*257).save(path)
def floats(path):
    Image.fromarray(RAMP.astype(np.float32)/255).save(path)
def palette(path):
    Image.fromarray(COLOUR).quantize(256).save(path)
def animated(path):
    Image.fromarray(COLOUR).save(path, save_all=True, append_images=[Image.new("RGB", (60, 40))])
def plain(path):
    Image.fromarray(COLOUR).save(path)


@pytest.mark.parametrize("write, name", [(turned, "turned.jpg"), (cmyk, "cmyk.jpg"), (cmyk, "cmyk.tif"),
                                         (grey16, "16.png"), (grey16, "16.tif"), (grey32, "32.tif"),
                                         (floats, "float.tif"),
                                         (palette, "palette.png"), (palette, "palette.gif"),
                                         (animated, "animated.gif"), (animated, "animated.webp"),
                                         (animated, "animated.png"),
                                         (plain, "plain.bmp"), (plain, "plain.webp"), (plain, "name that lies.jpg"),
                                         (plain, "愤怒 θλίψη.png")])
def test_readable(tmp_path, write, name):
    path = tmp_path/name
    if name == "name that lies.jpg":
        Image.fromarray(COLOUR).save(tmp_path/"x.png")
        (tmp_path/"x.png").rename(path)
    else:
        write(path)
    image = read_image(path)
    assert image.mode == "RGB" and image.size == (60, 40)
    expected = RAMP[..., None].repeat(3, -1) if name.split(".")[0] in ("16", "32", "float") else COLOUR
    assert np.abs(np.asarray(image).astype(int) - expected).mean() < 8


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_white(tmp_path, mode):
    image = Image.new(mode, (4, 4), (200, 10, 10, 0) if mode == "RGBA" else (10, 0))
    image.save(tmp_path/"a.png")
    assert (np.asarray(read_image(tmp_path/"a.png")) == 255).all()


def jpeg(path):
    plain(path)
    return path.read_bytes()


def bomb(path):
    "A PNG header that claims 60,000 x 60,000 pixels."
    import struct
    import zlib
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"0"), b"IEND")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(c) - 4) + c
                                                     + struct.pack(">I", zlib.crc32(c)) for c in chunks))


def sparse(path):
    "40 GB long, and nothing on the disk."
    with open(path, "wb") as f:
        f.truncate(40 << 30)


BAD = {
    "zero bytes": (lambda p: p.write_bytes(b""), "is empty (0 bytes)"),
    "truncated": (lambda p: p.write_bytes(jpeg(p)[:-200]), "truncated"),
    "only a header": (lambda p: p.write_bytes(jpeg(p)[:20]), "cannot be read as an image"),
    "noise": (lambda p: p.write_bytes(bytes(range(256))*4), "its format is not known"),
    "PostScript": (lambda p: p.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
                   "its format is not known"),
    "bomb": (bomb, "too many pixels"),
    "folder": (lambda p: p.mkdir(), "cannot be read"),
    "pipe": (os.mkfifo, "is not a regular file"),
    "sparse": (sparse, "is larger than 512 MB"),
    "endless": (lambda p: p.symlink_to("/dev/zero"), "is not a regular file"),
    "link to itself": (lambda p: p.symlink_to(p.name), "cannot be read"),
    "broken link": (lambda p: p.symlink_to("nowhere"), "There is no image"),
}


@pytest.mark.parametrize("kind", BAD)
def test_unreadable(tmp_path, kind):
    write, words = BAD[kind]
    path = tmp_path/"bad.jpg"
    write(path)
    with pytest.raises((ValueError, FileNotFoundError), match=words.replace("(", r"\(").replace(")", r"\)")) as caught:
        read_image(path)
    assert "\n" not in str(caught.value) and "bad.jpg" in str(caught.value)


@pytest.mark.parametrize("kind", [k for k in BAD if k != "folder"])
def test_decode_skips_and_lists(tmp_path, kind):
    root = folder_of(tmp_path/"data")
    good = decode(open_dataset(root), 16)
    BAD[kind][0](root/"awe"/"2b.jpg")
    for cache in (None, tmp_path/"cache"):
        with pytest.warns(UserWarning, match="1 of 9 images"):
            result = decode(open_dataset(root), 16, cache=cache)
        assert [name for name, _ in result.skipped] == ["awe/2b.jpg"]
        assert (result.pixels == good.pixels).all() and (result.labels
                                                         == good.labels).all() and result.names == good.names


def test_nothing_readable(tmp_path):
    (tmp_path/"awe").mkdir()
    (tmp_path/"awe"/"1.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="None of the 1 images"):
        decode(open_dataset(tmp_path), 16)


def test_file_name_that_is_not_utf8(tmp_path):
    root = folder_of(tmp_path/"data")
    strange = os.fsencode(root/"awe") + b"/\xff\xfe.png"
    try:
        os.rename(root/"awe"/"0.png", strange)
    except OSError:
        pytest.skip("this file system refuses such names")
    images = decode(open_dataset(root), 16, cache=tmp_path/"cache")
    assert len(images) == 8 and images.fingerprint() and any(r"\xff\xfe" in name for name in images.names)
    check_data(root).save(tmp_path/"clean.csv")
    assert len(open_dataset(tmp_path/"clean.csv")) == 8


def test_one_image_in_a_class(tmp_path):
    folder_of(tmp_path)
    for i in (1, 2, 3):
        (tmp_path/"awe"/f"{i}.png").unlink()
    files = open_dataset(tmp_path)
    with pytest.raises(ValueError, match="has 1 image, fewer than the 3 parts"):
        datasets.stable_split(files)
    with pytest.raises(ValueError, match="has 1 image, but a positive pair needs 2"):
        datasets.balanced_batches(files.labels)


TABLES = {
    "votes missing": ("flickr.txt", "images-name Amusement Awe\n1.jpg 3\n",
                      "row 2: expected a number for each emotion"),
    "votes not numbers": ("flickr.txt", "images-name Amusement Awe\n1.jpg 3 many\n",
                          "row 2: expected a number for each emotion"),
    "unknown emotion": ("flickr.txt", "images-name Amusement Hunger\n1.jpg 3 4\n", "Unknown label 'Hunger'"),
    "no file there": ("flickr.txt", "images-name Amusement Awe\n1.jpg 3 4\n",
                      "none of them can be used; the first: 1.jpg"),
    "broken JSON": ("train.json", "[[", "is not a list of"),
    "JSON of something else": ("train.json", '{"a": 1}', "is not a list of"),
    "unknown emotion in JSON": ("train.json", '[["hunger", "1", "image/1.jpg", "x"]]', "Unknown label 'hunger'"),
    "FI without columns": ("agg/awe_0.csv", "http://x/1.jpg\n", "expected number,url,disagree,agree"),
    "binary": ("ABSTRACT_groundTruth.csv", "'','Awe'\n'a.jpg',\0\n", "ABSTRACT_groundTruth.csv"),
    "nothing at all": ("readme.md", "hello", "holds no data set that is known here"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_bad_tables(tmp_path, kind):
    name, text, words = TABLES[kind]
    (tmp_path/name).parent.mkdir(exist_ok=True)
    (tmp_path/name).write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        open_dataset(tmp_path)
    assert "\n" not in str(caught.value)


for _votes in ("nan", "-1", "inf"):
    TABLES[f"votes of {_votes}"] = ("flickr.txt", f"images-name Amusement Awe\n1.jpg 3 {_votes}\n",
                                    "row 2: expected a number for each emotion, 0 or more")


@pytest.mark.parametrize("text, words", [("a,b\n", "must begin with the columns"),
                                         ("", "must begin with the columns"),
                                         ("image,label,split\n1.png\n", "expected image,label,split"),
                                         ("image,label,split\n1.png,awe,exam\n", "expected image,label,split"),
                                         ("image,label\n1.png,hunger\n", "Unknown label 'hunger'"),
                                         ("image,label\n1.png,awe\n", "none of them can be used")])
def test_bad_lists(tmp_path, text, words):
    (tmp_path/"list.csv").write_text(text)
    with pytest.raises(ValueError, match=words):
        open_dataset(tmp_path/"list.csv")


def test_cache_survives_a_real_write_error(tmp_path):
    """A limit on the size of files is a write error that needs neither a full disk nor a trick; a second run completes
    the cache."""
    folder_of(tmp_path/"data")
    code = ("import resource, sys; from apse_nb.datasets import decoding as d; d.CHUNK = 2; "
            "resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000));"
            f"d.decode(d.open_dataset({str(tmp_path/'data')!r}), 16, cache={str(tmp_path/'cache')!r}, workers=1)")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "OSError: The disk is full" in run.stderr and "the 4 of 8 images decoded so far are kept" in run.stderr
    files = open_dataset(tmp_path/"data")
    assert (decode(files, 16, cache=tmp_path/"cache").pixels == decode(files, 16).pixels).all()


def test_half_a_chunk_is_written_again(tmp_path):
    files = open_dataset(folder_of(tmp_path/"data"))
    decode(files, 16, cache=tmp_path/"cache")
    folder = next((tmp_path/"cache").iterdir())
    # five rows were written but not noted
    (folder/"progress.json").write_text('{"size": 16, "done": 3, "skipped": []}')
    assert (decode(files, 16, cache=tmp_path/"cache").pixels == decode(files, 16).pixels).all()
    (folder/"pixels.u8").write_bytes((folder/"pixels.u8").read_bytes()[:1000])  # rows that the note speaks of are gone
    assert (decode(files, 16, cache=tmp_path/"cache").pixels == decode(files, 16).pixels).all()


@pytest.mark.parametrize("name", [" leading", "n"*245, 'a, "b"', "line\nbreak"])
def test_folders_of_any_name_are_checked_listed_and_decoded(tmp_path, name):
    root = folder_of(tmp_path/name)
    (root/"awe"/"0.png").rename(root/"awe"/" 0 .png")
    assert run(apse_check_data, root, "--out", tmp_path/"clean.csv").exit_code == 0
    files = open_dataset(tmp_path/"clean.csv")
    assert sorted(files.paths) == sorted(open_dataset(root).paths)
    assert (decode(files, 16).pixels == load_images(str(root), 16, cache=tmp_path/"cache").pixels).all()


def test_spaces_around_the_fields_of_a_list_are_no_part_of_them(tmp_path):
    root = folder_of(tmp_path/"data")
    (root/"list.csv").write_text("image, label, split\nawe/1.png , awe, train\n fear/1.png, fear , val\n")
    files = open_dataset(root/"list.csv")
    assert files.names == ["awe/1.png", "fear/1.png"] and files.split.tolist() == ["train", "val"]


def test_large_list_is_fast():
    "Names and subsets of an EmoSet's worth of files: seconds would mean something silly."
    import time
    start = time.process_time()
    files = ImageFiles([f"/data/emoset/image/awe/awe_{i:05d}.jpg" for i in range(118_000)], np.arange(118_000) % 8,
                       MIKELS, "/data/emoset")
    assert files.names[5] == "image/awe/awe_00005.jpg"
    files.split = datasets.stable_split(files)
    files.part("train")
    assert time.process_time() - start < 10


# ---------------------------------------------------------------- the command line
def test_check_clean_data(tmp_path):
    result = run(apse_check_data, folder_of(tmp_path/"data"), "--out", tmp_path/"clean.csv")
    assert result.exit_code == 0 and "8 images: 8 clean, 0 with problems" in result.stdout and result.stderr == ""
    assert open_dataset(tmp_path/"clean.csv").counts() == open_dataset(tmp_path/"data").counts()


def test_check_spoilt_data(tmp_path):
    root = folder_of(tmp_path/"data")
    (root/"awe"/"0.png").write_bytes(b"")
    (root/"fear"/"copy.png").write_bytes((root/"fear"/"1.png").read_bytes())
    result = run(apse_check_data, root, "--out", tmp_path/"clean.csv", "--problems", tmp_path/"problems.csv",
                 "--workers", 1)
    assert result.exit_code == 1 and "9 images: 7 clean, 2 with problems" in result.stdout
    assert "unreadable: awe/0.png" in result.stdout
    assert "duplicate: fear/copy.png: same image as fear/1.png" in result.stdout
    assert len((tmp_path/"problems.csv").read_text().splitlines()) == 3
    assert run(apse_check_data, tmp_path/"clean.csv").exit_code == 0


@pytest.mark.parametrize("arguments, words", [(["/nowhere"], "There is no folder /nowhere"),
                                              ([], "Missing argument 'ROOT'"), (["/", "--bogus"], "--bogus"),
                                              (["/", "--kind", "x"], "Unknown kind"),
                                              (["/", "--copies", "1"], "--copies")])
def test_wrong_arguments_are_one_line(arguments, words):
    result = run(apse_check_data, *arguments)
    assert result.exit_code == 2 and result.stdout == "" and result.stderr.count("\n") == 1
    assert result.stderr.startswith("apse_check_data: ") and words in result.stderr


def test_unwritable_output_is_one_line(tmp_path):
    result = run(apse_check_data, folder_of(tmp_path/"data"), "--out", tmp_path/"no such folder"/"clean.csv")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and "No such file or directory" in result.stderr


def test_help_is_a_manual():
    result = run(apse_check_data, "--help")
    assert result.exit_code == 0 and "Exit status" in result.stdout and "--problems" in result.stdout


@pytest.mark.parametrize("error, status, words", [(KeyboardInterrupt(), 130, "run the same command again"),
                                                  (ValueError("two\nlines"), 2, "two lines"),
                                                  (FileNotFoundError("a sentence."), 2, "a sentence."),
                                                  (OSError(errno.ENOSPC, "No space left on device", "x.bin"), 2,
                                                   "The disk is full (x.bin)"), (PermissionError(errno.EACCES,
                                                           "Permission denied", "y"), 2, "Permission denied: y.")])
def test_errors_become_one_sentence(error, status, words):
    @click.command(cls=OneLineErrors)
    def apse_x():
        raise error

    result = CliRunner().invoke(apse_x, [])
    assert result.exit_code == status and result.stderr.count("\n") == 1
    assert result.stderr.startswith("apse_x: ") and words in result.stderr


def test_warnings_become_one_line_and_bugs_stay_visible():
    @click.command(cls=OneLineErrors)
    @click.option("--bug", is_flag=True)
    def apse_x(bug):
        warnings.warn("two images were skipped")
        if bug:
            raise ZeroDivisionError

    assert CliRunner().invoke(apse_x, []).stderr == "apse_x: two images were skipped\n"
    assert isinstance(CliRunner().invoke(apse_x, ["--bug"]).exception, ZeroDivisionError)


def test_interrupt_from_outside(tmp_path):
    "A real Ctrl-C while the command works: one line, status 130."
    root = folder_of(tmp_path/"data")
    code = ("import os, signal, sys; from apse_nb.datasets import checks as d, commands; real = d._image_digest\n"
            "def slow(path): os.kill(os.getpid(), signal.SIGINT); return real(path)\n"
            f"d._image_digest = slow; sys.argv = ['apse_check_data', {str(root)!r}]; commands.apse_check_data()")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 130 and run.stderr.strip().splitlines()[-1].startswith("apse_check_data: "
            "stopped;") and "Traceback" not in run.stderr


# ---------------------------------------------------------------- taxonomies
def test_a_taxonomy_file(tmp_path):
    path = tmp_path/"weather.json"
    path.write_text('{"classes": {"fine": ["Sun"], "foul": ["storm", "hail"]}, "aliases": {"1": "hail"}}')
    own = find_taxonomy(path)
    assert (own.name, own.parent, own.index("sun"), own.index("1")) == ("weather", (0, 1, 1), 0, 2)
    path.write_text(json.dumps(asdict(MIKELS)))
    assert find_taxonomy(str(path)) == MIKELS
    many = {"classes": {"a": [f"a{i}" for i in range(20)], "b": ["b"]}}
    path.write_text(json.dumps(many))
    assert len(set(find_taxonomy(path).palette)) == 21


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"classes": 3}', '{"classes": {"a": ["x", "x"]}}', "[" * 100_000,
                                  '{"classes": {"a": ["\\u001b[2J"]}}', '{"classes": {"a": [3]}}',
                                  '{"classes": {"a": ["x"]}, "palette": ["red\\"><meta http-equiv=refresh"]}',
                                  '{"classes": {"a": ["x"], "b": ["y"], "a": ["z"]}}',
                                  '{"classes": {"a": ["x"]}, "colour": "#000000"}'])
def test_a_file_that_is_no_taxonomy(tmp_path, text):
    (tmp_path/"t.json").write_text(text)
    with pytest.raises(ValueError, match="does not describe a taxonomy") as caught:
        find_taxonomy(tmp_path/"t.json")
    assert str(caught.value).isprintable()


def test_taxonomy_is_recognised_from_folders(tmp_path):
    folder_of(tmp_path/"ekman", ("joy", "surprise"))
    folder_of(tmp_path/"polarity", ("negative", "positive"))
    folder_of(tmp_path/"numbers", ("0", "3"))
    assert open_dataset(tmp_path/"ekman").taxonomy == EKMAN
    assert open_dataset(tmp_path/"polarity").counts() == {"positive": 4, "negative": 4}
    with pytest.raises(ValueError, match="Unknown label '0'.*--taxonomy"):
        open_dataset(tmp_path/"numbers")
    with pytest.warns(UserWarning, match="are numbers, read as 0 amusement, 1 awe"):
        assert open_dataset(tmp_path/"numbers", taxonomy=MIKELS).counts()["excitement"] == 4


# ---------------------------------------------------------------- splits
def many_files(per_class=48, root="data"):
    names = [f"{root}/{emotion}/{i}.jpg" for emotion in MIKELS.fine for i in range(per_class)]
    return ImageFiles(names, np.repeat(np.arange(8), per_class), MIKELS, root)


def test_nothing_is_tested_that_was_trained_on_when_files_go():
    "Shuffled with a seed, 42 of 56 test images had been trained on after one file of each class was removed."
    files = many_files()
    stay = np.flatnonzero(np.arange(len(files)) % 48 != 17)
    before, after = datasets.stable_split(files), datasets.stable_split(files.subset(stay))
    assert not ((after == "test") & (before[stay] == "train")).any() and (after == before[stay]).mean() > .98


def test_a_split_does_not_depend_on_where_one_stands(tmp_path, monkeypatch):
    folder_of(tmp_path/"data", per_class=12)
    absolute = datasets.stable_split(open_dataset(tmp_path/"data"))
    monkeypatch.chdir(tmp_path)
    files = open_dataset("data")
    assert (datasets.stable_split(files) == absolute).all()
    save_split("list.csv", files)
    assert (datasets.stable_split(open_dataset("list.csv")) == absolute).all()


@pytest.mark.parametrize("per_class", [6, 26, 100])
def test_every_part_has_a_pair_of_each_emotion(per_class):
    files = many_files(per_class)
    split = datasets.stable_split(files)
    for part in ("train", "val", "test"):
        assert np.bincount(files.labels[split == part], minlength=8).min() >= 2
    files.split = split
    datasets.check_parts(files.part("train"), files.part("val"))


def test_too_few_images_are_noticed_before_training_and_named():
    files = many_files(4)
    with pytest.raises(ValueError, match="The validation part has 1 image of fear, but each must find another"):
        datasets.check_parts(files, files.subset([0, 1, 6*4]))
    with pytest.raises(ValueError, match="The training part has 1 image of fear, but a positive pair needs 2"):
        datasets.check_parts(files.subset([0, 1, 6*4]), files)
    with pytest.raises(ValueError, match="^fear has 1 image, but a positive pair needs 2"):
        datasets.balanced_batches([0, 0, 6], taxonomy=MIKELS)


# ---------------------------------------------------------------- names in lists
def votes_for(root, *names):
    "A Flickr_LDL table that names these images, each with a label of its own."
    table = [f"{name} {' '.join(str(int(k == i)) for k in range(8))}" for i, name in enumerate(names)]
    (root/"votes.txt").write_text("\n".join(["images-name " + " ".join(MIKELS.fine), *table]) + "\n")


def test_exact_names_come_first(tmp_path):
    for name in ("IMG_1.webp", "img_1.webp", "a/1.webp", "é.webp"):
        (tmp_path/name).parent.mkdir(exist_ok=True)
        plain(tmp_path/name)
    votes_for(tmp_path, "IMG_1.webp", "img_1.webp", "a\\1.webp", "e\u0301.webp")
    files = open_dataset(tmp_path)
    assert dict(zip(files.names, files.labels)) == {"IMG_1.webp": 0, "img_1.webp": 1, "a/1.webp": 2, "é.webp": 3}


@pytest.mark.parametrize("there, written, words", [
    (["a/1.webp", "b/1.webp"], ["1.webp"], "could be a/1.webp or b/1.webp"),
    (["IMG_1.webp"], ["IMG_1.webp", "img_1.webp"], "both lead to")])
def test_ambiguous_names_are_errors(tmp_path, there, written, words):
    for name in there:
        (tmp_path/name).parent.mkdir(exist_ok=True)
        plain(tmp_path/name)
    votes_for(tmp_path, *written)
    with pytest.raises(ValueError, match=words):
        open_dataset(tmp_path)


def test_nobody_voted(tmp_path):
    for name in ("1.png", "2.png"):
        plain(tmp_path/name)
    (tmp_path/"votes.txt").write_text("images-name Amusement Awe\n1.png 0 0\n2.png 0 3\n")
    with pytest.warns(UserWarning, match="nobody voted"):
        assert open_dataset(tmp_path, ties="keep").counts()["amusement"] == 0


# ---------------------------------------------------------------- stray files, walks
def test_stray_files_beside_class_folders(tmp_path):
    root = folder_of(tmp_path/"data")
    (root/"stray.csv").write_text("image,caption\n1.png,a storm\n")
    (root/"train.json").write_text('{"images": [], "annotations": []}')
    (root/"awe"/"IMG_7.HEIC").write_bytes(b"ftypheic")
    for folder in ("@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "System Volume Information", ".Trash-1000"):
        (root/folder).mkdir()
        (root/"awe"/folder).mkdir()
        plain(root/"awe"/folder/"1.png")
    with pytest.warns(UserWarning) as caught:
        files = open_dataset(root)
    assert len(files) == 8 and files.ignored[".heic"] == 1
    said = " ".join(str(w.message) for w in caught)
    assert "photographs that cannot be read: 1 .heic" in said and "train.json is not a list" in said
    result = run(apse_check_data, root)
    assert result.exit_code == 0 and "not images: 1 .heic" in result.stdout


def test_a_class_of_unreadable_photographs_is_named(tmp_path):
    root = folder_of(tmp_path/"data")
    (root/"anger").mkdir()
    (root/"anger"/"IMG_7.HEIC").write_bytes(b"ftypheic")
    with pytest.raises(ValueError, match="has no images of anger, only 1 .heic"):
        open_dataset(root)


def test_a_closed_folder_is_reported(tmp_path, monkeypatch):
    root = folder_of(tmp_path/"data")
    (root/"awe"/"closed").mkdir()
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.warns(UserWarning, match=r"awe/closed \(the folder cannot be read \(Permission denied\)\)"):
        files = open_dataset(root)
    assert len(files) == 8 and run(apse_check_data, root).exit_code == 1


# ---------------------------------------------------------------- sizes and memory
def test_large_jpeg_comes_at_a_fraction(tmp_path):
    Image.new("L", (16_000, 12_500), 90).save(tmp_path/"large.jpg", quality=30)      # 200 million pixels
    image = read_image(tmp_path/"large.jpg")
    assert image.size == (8000, 6250) and image.width*image.height <= datasets.MOST_PIXELS
    assert datasets.decode_square(tmp_path/"large.jpg", 256).mean() == pytest.approx(90, abs=1)


def test_bomb_is_refused_before_it_fills_the_memory(tmp_path):
    Image.new("1", (13_300, 13_300)).save(tmp_path/"bomb.png")
    code = ("import resource, sys; from apse_nb.images import read_image\n"
            "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "before = peak()\n"
            "try: read_image(sys.argv[1])\n"
            "except ValueError as e: print(e)\n"
            "assert peak() - before < 50_000, peak() - before")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path/"bomb.png")], capture_output=True, text=True)
    assert done.returncode == 0 and "13300 x 13300 are too many pixels" in done.stdout, done.stderr


def test_an_image_that_does_not_fit_into_memory_is_skipped_by_name_and_asked_for_again(tmp_path, monkeypatch):
    files = open_dataset(folder_of(tmp_path/"data"))
    good, to_rgb = decode(files, 16), datasets.to_rgb

    def too_large(image):
        if np.array_equal(np.asarray(image), third):
            raise MemoryError
        return to_rgb(image)

    third = np.asarray(read_image(files.paths[2]))
    monkeypatch.setattr(datasets, "to_rgb", too_large)
    with pytest.warns(UserWarning, match="awe/2.png does not fit into memory now"):
        assert len(decode(files, 16, cache=tmp_path/"cache", workers=1)) == 7
    monkeypatch.undo()
    assert (decode(files, 16, cache=tmp_path/"cache").pixels == good.pixels).all()


def test_a_file_that_the_system_refused_once_comes_back(tmp_path, monkeypatch):
    files = open_dataset(folder_of(tmp_path/"data"))
    good, read = decode(files, 16), datasets.file_bytes

    def refuse(path):
        if str(path).endswith("2.png"):
            raise RefusedFile("cannot be read (Input/output error)")
        return read(path)

    monkeypatch.setattr(datasets, "file_bytes", refuse)
    for _ in range(2):
        with pytest.warns(UserWarning, match="2 of 8 images"):
            assert len(decode(files, 16, cache=tmp_path/"cache")) == 6
    monkeypatch.undo()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (decode(files, 16, cache=tmp_path/"cache").pixels == good.pixels).all()


@pytest.mark.parametrize("note", ["", "{", "[]", '{"done": 3}', '{"done": "3", "skipped": []}', "[" * 50_000,
                                  '{"done": 8, "skipped": [[9, "x", false]]}', '{"done": -1, "skipped": []}',
                                  '{"done": 9, "skipped": [[0, "x", false]]}'])
def test_a_damaged_note_is_named_and_healed(tmp_path, note):
    files = open_dataset(folder_of(tmp_path/"data"))
    good = decode(files, 16, cache=tmp_path/"cache").pixels.copy()
    next((tmp_path/"cache").glob("*/progress.json")).write_text(note)
    with pytest.warns(UserWarning, match="progress.json is damaged"):
        assert (decode(files, 16, cache=tmp_path/"cache").pixels == good).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(files, 16, cache=tmp_path/"cache")


def test_mpo_is_read(tmp_path):
    root = folder_of(tmp_path/"data")
    Image.fromarray(COLOUR).save(root/"awe"/"stereo.mpo", save_all=True, append_images=[Image.new("RGB", (60, 40))])
    assert "awe/stereo.mpo" in open_dataset(root).names
    assert np.abs(np.asarray(read_image(root/"awe"/"stereo.mpo")).astype(int) - COLOUR).mean() < 8


# ---------------------------------------------------------------- one data set, opened twice
def test_images_that_two_sets_share(tmp_path, monkeypatch):
    root = folder_of(tmp_path/"small")
    monkeypatch.chdir(tmp_path)
    one = load_images("small", 16, cache=tmp_path/"cache")
    other = load_images(str(root), 16, cache=tmp_path/"cache")
    assert datasets.shared_images(one, other).tolist() == [[i, i] for i in range(8)]
    folder_of(tmp_path/"copies", classes=("fear",), per_class=1)
    (root/"fear"/"0.png").rename(tmp_path/"copies"/"fear"/"0.png")
    Image.open(root/"awe"/"1.png").save(tmp_path/"copies"/"fear"/"again.png", compress_level=0)
    copies = load_images("copies", 16, cache=tmp_path/"cache")
    assert datasets.shared_images(one, copies).tolist() == [[4, 0], [1, 1]]
    with pytest.raises(ValueError, match="cannot be compared: open both at one size"):
        datasets.shared_images(one, load_images("copies", 24, cache=tmp_path/"cache"))


def test_images_that_were_added_are_there(tmp_path):
    root = folder_of(tmp_path/"data")
    first = load_images(str(root), 16, cache=tmp_path/"cache")
    plain(root/"awe"/"new.png")
    assert len(first) == 8 and len(load_images(str(root), 16, cache=tmp_path/"cache")) == 9
    scenes = load_images("scenes", 16, "val", limit=8)
    with pytest.raises(ValueError, match="read-only"):
        scenes.labels[0] = 3
    scenes.names = ["changed"]*8
    assert load_images("scenes", 16, "val", limit=8).names[0] == "scene_1_000000"


# ---------------------------------------------------------------- names and exit codes of the command
def test_names_cannot_command_a_terminal(tmp_path):
    root = folder_of(tmp_path/"data")
    (root/"awe"/"a\n\x1b[2J\a.jpg").write_bytes(b"")
    try:
        (root/"awe"/os.fsdecode(b"\xff.jpg")).write_bytes(b"")
    except OSError:
        pytest.skip("this file system refuses such names")
    result = run(apse_check_data, root, "--problems", tmp_path/"x.csv")
    assert result.exit_code == 1 and "10 images: 8 clean, 2 with problems" in result.stdout
    assert not set(result.stdout) & {"\x1b", "\a"} and r"awe/a\n\x1b[2J\x07.jpg" in result.stdout
    assert r"awe/\xff.jpg" in (tmp_path/"x.csv").read_text(encoding="utf-8")


def test_missing_files_are_found(tmp_path):
    folder_of(tmp_path/"data")
    (tmp_path/"missing.csv").write_text("image,label\ndata/awe/0.png,awe\ndata/awe/gone.png,awe\n")
    result = run(apse_check_data, tmp_path/"missing.csv")
    assert result.exit_code == 1 and "left out: data/awe/gone.png: the file is missing" in result.stdout


def test_a_thousand_damaged_images_are_decoded_or_refused_in_one_sentence():
    "35 seeds of every format, each with bytes changed, cut or repeated: an RGB image or one sentence, nothing else."
    rng, made = np.random.default_rng(0), []
    for layout in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"):
        for seed in range(5):
            out = io.BytesIO()
            pixels = np.random.default_rng(seed).integers(0, 256, (24 + seed, 31, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(out, layout)
            made.append(out.getvalue())
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(1015):
            data = bytearray(made[number % len(made)])
            kind = number % 3
            if kind == 0:
                for place in rng.integers(0, len(data), 8):
                    data[place] = rng.integers(256)
            elif kind == 1:
                del data[int(rng.integers(1, len(data))):]
            else:
                place = int(rng.integers(len(data)))
                data[place:place] = data[:int(rng.integers(1, 200))]
            try:
                image = decode_bytes(bytes(data), "it")
            except ValueError as e:
                refused += 1
                assert "\n" not in str(e) and str(e).startswith("it ")
            else:
                assert image.mode == "RGB"
    assert 100 < refused < 1000
