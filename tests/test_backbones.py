"""Backbones of timm, weights that unfold without end, and networks that leave PyTorch with a batch of any size."""
import lzma

import pytest
import torch

import apse_nb.backbones as backbones
from apse_nb.backbones import (
    Backbone, SceneNet, build_network, load_imagenet, load_weights, read_weights, save_weights,
    stage_nodes)
from apse_nb.emotions import MIKELS
from apse_nb.network import ABLATION, APSE, network_from_config

ANY_BATCH = ({0: torch.export.Dim("batch", min=1, max=64)},)


def test_a_compressed_file_does_not_unfold_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(backbones, "LARGEST_WEIGHTS", 2**20)
    bomb = tmp_path/"bomb.safetensors.xz"
    bomb.write_bytes(lzma.compress(bytes(2**25)))
    assert bomb.stat().st_size < 2**14
    with pytest.raises(ValueError, match="bomb.safetensors.xz holds more than 1 MB"):
        read_weights(bomb)
    large = tmp_path/"large.safetensors"
    large.write_bytes(bytes(2**20 + 1))
    with pytest.raises(ValueError, match="large.safetensors is larger than 1 MB"):
        read_weights(large)


def test_timm(tmp_path):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file
    whole = timm.create_model("efficientnet_b0").eval()
    save_file(whole.state_dict(), tmp_path/"whole.safetensors")
    taps = Backbone("timm:efficientnet_b0", ["conv3", "conv5"], tmp_path/"whole.safetensors", freeze="conv2")
    assert taps.channels == {"conv3": 40, "conv5": 320}
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = whole.forward_intermediates(x, intermediates_only=True)[-1]
        assert torch.equal(taps.eval()(x)["conv5"], wanted)
    taps.train()
    taps(x)["conv5"].sum().backward()
    stem, last = taps.network.network.conv_stem, list(taps.parameters())[-1]
    assert stem.weight.grad is None and last.grad is not None and not taps.network.network.bn1.training
    for name, stages, sentence in (("timm:nonsense", ["conv3"], "has no network 'nonsense'"),
                                   ("timm:convnext_atto", ["conv1"], "choose from conv2, conv3, conv4, conv5")):
        with pytest.raises(ValueError, match=sentence):
            Backbone(name, stages)
    network = APSE(MIKELS, "timm:efficientnet_b0", dim=16).eval()
    again = network_from_config(network.config).eval()
    again.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(again(x).embedding, network(x).embedding)


@pytest.mark.parametrize("method", ["gep", "softmax"])
def test_export_with_any_batch(method):
    torch.manual_seed(0)
    network = APSE(MIKELS, backbone="scene_net", weights="shapes", dim=16, **ABLATION[method]).eval()
    program = torch.export.export(network, (torch.randn(2, 3, 64, 64),), dynamic_shapes=ANY_BATCH)
    for batch in (1, 5):
        x = torch.randn(batch, 3, 64, 64)
        with torch.no_grad():
            found, wanted = program.module()(x), network(x)
        assert torch.allclose(found.embedding, wanted.embedding, atol=1e-6)
        assert torch.allclose(found.high.scores, wanted.high.scores, atol=1e-5)


def test_onnx(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = APSE(MIKELS, backbone="scene_net", weights="shapes", dim=16).eval()

    class Embedding(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, images):
            return self.network(images).embedding
    path = tmp_path/"apse.onnx"
    torch.onnx.export(Embedding().eval(), (torch.randn(2, 3, 64, 64),), path, dynamo=True, verbose=False,
                      dynamic_shapes=ANY_BATCH)
    x = torch.randn(5, 3, 64, 64)
    session = onnxruntime.InferenceSession(path)
    found, = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        assert torch.allclose(torch.from_numpy(found), network(x).embedding, atol=1e-5)


def test_files_that_hold_no_weights(tmp_path):
    torch.manual_seed(0)
    network = SceneNet()
    save_weights(network, tmp_path/"scene.safetensors")
    whole = (tmp_path/"scene.safetensors").read_bytes()
    (tmp_path/"scene.pth").write_bytes(whole)
    (tmp_path/"half.safetensors").write_bytes(whole[:len(whole)//2])
    (tmp_path/"half.safetensors.xz").write_bytes(lzma.compress(whole)[:5000])
    network.stem[0].weight.data[0, 0, 0, 0] = float("nan")
    save_weights(network, tmp_path/"nan.safetensors")
    for name, words in (("nowhere.safetensors", "no weights file"), ("scene.pth", "is not a .safetensors"),
                        ("half.safetensors", "damaged or cut short"), ("half.safetensors.xz", "damaged or cut short"),
                        ("nan.safetensors", "stem.0.weight contains NaN")):
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            load_weights(SceneNet(), tmp_path/name)
    with pytest.raises(ValueError, match="another architecture: it lacks conv1.weight"):
        load_weights(build_network("resnet18"), tmp_path/"scene.safetensors")


def test_without_a_connection_there_is_one_sentence():
    from unittest.mock import patch
    from urllib.error import URLError
    with patch("torchvision.models._api.load_state_dict_from_url", side_effect=URLError("no connection")):
        with pytest.raises(FileNotFoundError, match="could not be downloaded .*no connection"):
            load_imagenet(build_network("resnet18"), "resnet18")


@pytest.mark.parametrize("call, words", [
    (lambda: build_network("resnet19"), "Unknown backbone 'resnet19'"),
    (lambda: Backbone("resnet18", weights="shapes"), "'shapes' belong to scene_net"),
    (lambda: Backbone("scene_net", weights="imagenet"), "scene_net has no ImageNet weights"),
    (lambda: Backbone("resnet18", ["conv6"]), "Unknown stage 'conv6'"),
    (lambda: Backbone("scene_net", []), "at least one stage"),
    (lambda: Backbone("scene_net")(torch.zeros(2, 64, 64, 3, dtype=torch.uint8)), "floats of shape B x 3 x H x W")])
def test_what_a_backbone_refuses(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_the_small_network_is_cut_as_torchvision_would_cut_it():
    from torchvision.models.feature_extraction import create_feature_extractor
    network, x = build_network("scene_net").eval(), torch.randn(2, 3, 64, 64)
    nodes = {node: stage for stage, node in stage_nodes("scene_net", network).items() if stage != "conv5"}
    ours, theirs = backbones._Chain(network, nodes), create_feature_extractor(network, nodes)
    assert all(torch.equal(theirs(x)[stage], found) for stage, found in ours(x).items()) and len(ours(x)) == 4
    assert {name for name, _ in ours.named_parameters()} == {name for name, _ in theirs.named_parameters()}
