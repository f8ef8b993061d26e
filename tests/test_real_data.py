"""Checks on real photographs, which are not part of the project: they run where APSE_REAL_DATA names a folder that
has them."""
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from apse_nb.backbones import Backbone
from apse_nb.datasets.checks import check_data
from apse_nb.datasets.decoding import decode
from apse_nb.datasets.readers import open_dataset
from apse_nb.emotions import MIKELS
from apse_nb.metrics import evaluate
from apse_nb.network import APSE
from apse_nb.training import embed

SHARED = Path(os.environ.get("APSE_REAL_DATA", "nowhere"))
pytestmark = pytest.mark.skipif(not (SHARED/"data"/"fi").is_dir(), reason="no real photographs here (APSE_REAL_DATA)")


@pytest.fixture(scope="module")
def fi(tmp_path_factory):
    root = tmp_path_factory.mktemp("fi")
    with zipfile.ZipFile(SHARED/"data"/"fi"/"fi_val.zip") as z:
        z.extractall(root)
    return open_dataset(root)


def test_fi_validation_images_are_all_readable(fi):
    assert fi.counts() == dict(amusement=236, awe=144, contentment=256, excitement=136, anger=59, disgust=79,
                               fear=48, sadness=132)
    report = check_data(fi.root)
    assert not report.problems().shape[0] and len(report.clean) == 1090


def test_pretrained_features_know_something_about_emotions(fi):
    """Features of an ImageNet network rank real photographs of the same emotion above chance, and random weights hardly
    do."""
    images = decode(fi, 128)
    settings = dict(backbone="resnet18", heads="none", attend="none", features="high")
    scores = {}
    for weights in (SHARED/"weights"/"resnet18_imagenet_pqf.safetensors.xz", None):
        torch.manual_seed(0)
        found = embed(APSE(MIKELS, weights=weights, **settings), images, crop=112).embeddings
        report = evaluate(found, images.labels, found, images.labels, MIKELS, same_set=True)
        scores[weights is not None] = report.map8
    assert scores[True] > report.floor["map8"] + 0.06
    assert scores[True] > scores[False] + 0.04


def test_flickr_ldl_votes(tmp_path):
    with zipfile.ZipFile(SHARED/"data"/"flickr_ldl"/"flickr_ldl_odd.zip") as z:
        z.extractall(tmp_path)
    files = open_dataset(tmp_path, ties="keep")
    assert len(files) == 525 and (files.votes.sum(1) == 11).all()
    assert (files.votes[np.arange(525), files.labels] == files.votes.max(1)).all()


def test_resnet50_weights_load_exactly():
    # raises when a key or a shape differs
    Backbone("resnet50", weights=SHARED/"weights"/"resnet50_imagenet_pqf.safetensors.xz")
