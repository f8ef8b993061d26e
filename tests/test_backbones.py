"""Backbones of timm, weights that unfold without end, and networks that leave PyTorch with a batch of any size."""
import lzma

import pytest
import torch

import apse_nb.backbones as backbones
from apse_nb.backbones import Backbone, read_weights
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
