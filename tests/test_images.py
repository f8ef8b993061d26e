"""Chapter 02 where a reader would not look: odd folders, classes of every size, other people's crop."""
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from apse_nb.emotions import MIKELS
from apse_nb.images import MEAN, STD, augment, balanced_batches, center_crop, read_folders, read_image
from apse_nb.scenes import make_scenes, save_scenes


def test_what_was_drawn_saved_and_found_again_is_what_was_drawn(tmp_path):
    scenes = make_scenes(16, size=32, seed=2, workers=1)
    save_scenes(scenes, tmp_path)
    plain = read_folders(tmp_path, MIKELS)
    known = dict(zip(scenes.names, zip(scenes.pixels, scenes.labels, scenes.masks)))
    assert len(plain) == 16
    for path, label in zip(plain.paths, plain.labels):
        pixels, true_label, mask = known[path.stem]
        assert label == true_label and np.array_equal(read_image(path), pixels)
        written = np.asarray(read_image(tmp_path/"masks"/path.parent.name/path.name))[:, :, 0] > 0
        assert np.array_equal(written, mask)


def test_circles_foreign_names_and_files_of_a_telephone(tmp_path):
    save_scenes(make_scenes(16, size=32, seed=2, workers=1), tmp_path)
    plain = read_folders(tmp_path, MIKELS)
    for name in ("فرح", "愤怒", "θλίψη"):
        shutil.copy(plain.paths[0], tmp_path/"anger"/f"{name}.png")
    os.symlink("..", tmp_path/"anger"/"round and round")
    os.symlink("itself", tmp_path/"anger"/"itself")
    Path(tmp_path/"anger"/"IMG_0001.HEIC").write_bytes(b"ftypheic")
    found = read_folders(tmp_path, MIKELS)
    assert found.counts() == plain.counts() | {"anger": plain.counts()["anger"] + 3}
    assert found.ignored[".heic"] == 1


@pytest.mark.parametrize("sizes", [[40]*8, [4, 5, 6, 7], [9, 31, 100], [2, 3, 50]])
def test_batches_are_balanced_and_every_image_has_its_turn(sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    batches = balanced_batches(labels, steps=57, seed=3, epoch=1)
    assert (labels[batches] == np.repeat(np.arange(len(sizes)), 4)).all()
    seen = np.bincount(batches.ravel(), minlength=len(labels))
    for c, n in enumerate(sizes):
        assert seen[labels == c].max() - seen[labels == c].min() <= 1
        if n >= 4:
            assert all(len(set(row)) == 4 for row in batches[:, 4*c:4*c + 4])
    assert (batches == balanced_batches(labels, steps=57, seed=3, epoch=1)).all()
    assert (batches != balanced_batches(labels, steps=57, seed=3, epoch=2)).any()


def test_the_middle_is_torchvisions_middle_and_channels_come_last():
    import apse_nb.backbones  # noqa: F401   before torchvision
    from torchvision.transforms.v2 import functional as tv
    pixels = torch.randint(0, 256, (2, 41, 50, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    wanted = tv.normalize(tv.center_crop(pixels.permute(0, 3, 1, 2), [24, 24]).float()/255, MEAN, STD)
    found = center_crop(pixels, 24)
    assert torch.allclose(found, wanted, atol=1e-5) and found.is_contiguous(memory_format=torch.channels_last)


def test_pixels_that_cannot_be_cropped():
    pixels = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    for wrong, crop, words in ((pixels, 17, "does not fit"), (pixels.float(), 8, "type uint8, not 2 x 16 x 16 x 3"),
                               (pixels[0], 8, "not 16 x 16 x 3")):
        with pytest.raises(ValueError, match=words):
            augment(wrong, crop)
