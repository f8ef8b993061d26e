"What the scripts of the pages without a kernel need from Python: numbers as JSON, images as files beside the page."
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from .book import ROOT

SIDE = 96                                                    # of a thumbnail, pixels
RUNTIME = ROOT/"node_modules"/"onnxruntime-web"/"dist"       # put there by npm, never part of the project
RUNTIME_FILES = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def save_sprite(pixels: np.ndarray, path: Path, columns: int = 8, side: int = SIDE) -> dict:
    "N square images as one file (JPEG, or PNG to the last digit), row by row; where the page finds them in it."
    small = [np.asarray(Image.fromarray(p).resize((side, side), Image.LANCZOS)) for p in pixels]
    small += [np.zeros_like(small[0])]*(-len(small) % columns)
    rows = [np.concatenate(small[k:k + columns], axis=1) for k in range(0, len(small), columns)]
    Image.fromarray(np.concatenate(rows)).save(path, quality=85)
    return dict(file=path.name, columns=columns, rows=len(rows))


def circle_data(folder: Path) -> dict:
    "The widget's first state, and its looks."
    from apse_nb.tools.plotting import PULL, PUSH
    from apse_nb.widgets.circle import HIGHEST_SCALE
    from apse_nb.widgets.circle_values import LOOKS, Circle
    return dict(start=asdict(Circle()), looks=LOOKS, highest=HIGHEST_SCALE,
                colours=dict(ep="#777777", pull=PULL, push=PUSH))


def _attention_loss(kind: str) -> float | None:
    "Eq. 3 of the network that made a batch of the playground, on the images of that batch; None for random directions."
    import torch
    from apse_nb.attention import attention_loss
    from apse_nb.emotions import MIKELS
    from apse_nb.images import center_crop
    from apse_nb.widgets.playground import _batch_network, make_batch
    if kind == "random":
        return None
    batch, (model, recipe) = make_batch(kind), _batch_network(kind)
    with torch.no_grad():
        found = model.eval()(center_crop(batch.pixels, recipe.crop))
    return attention_loss(found.low, found.high, batch.labels, MIKELS).item()


def playground_data(folder: Path) -> dict:
    "The widget's batches: dot products, class probabilities, the attention loss of the network that made them."
    from apse_nb.emotions import MIKELS
    from apse_nb.widgets.circle import HIGHEST_SCALE
    from apse_nb.widgets.playground import BATCHES, make_batch
    batches = {}
    for kind in BATCHES:
        batch = make_batch(kind)
        G = batch.embeddings @ batch.embeddings.T
        batches[kind] = dict(title=batch.title, G=G.tolist(), confidences=batch.confidences.tolist(),
                             images=batch.pixels is not None, attention=_attention_loss(kind))
    return dict(batches=batches, labels=batch.labels.tolist(), classes=MIKELS.fine, parent=MIKELS.parent,
                highest=HIGHEST_SCALE,
                sprite=save_sprite(make_batch("trained").pixels, folder/"playground.jpg"))


def ranks_data(folder: Path) -> dict:
    "A typical query, and a gallery of 24 scenes in the order that the shipped network gives them."
    from apse_nb.datasets.decoding import load_images
    from apse_nb.emotions import MIKELS
    from apse_nb.metrics import evaluate, rank_gallery
    from apse_nb.tools.plotting import TIER_FRAMES
    from apse_nb.training import embed, load_trained
    model, recipe = load_trained("scenes")
    scenes = load_images("scenes", recipe.resize, "test", limit=48)
    x = embed(model, scenes, **recipe.look).embeddings
    gallery, queries = np.arange(24), np.arange(24, 48)
    report = evaluate(x[queries], scenes.labels[queries], x[gallery], scenes.labels[gallery], MIKELS)
    score = report.per_query["map8"]
    query = queries[int((score - score.median()).abs().argmin())]
    order = rank_gallery(x[[query]], x[gallery])[0][0]
    shown = np.append(query, order)
    return dict(labels=scenes.labels[shown].tolist(), classes=MIKELS.fine, parent=MIKELS.parent,
                frames=[dict(css=f.css, colour=f.colour, sign=f.sign, words=f.words) for f in TIER_FRAMES],
                sprite=save_sprite(scenes.pixels[shown], folder/"ranks.jpg"))


def what_is_missing() -> str:
    "One sentence, if the network cannot be put into the page here."
    from importlib.util import find_spec
    wanted = ["pip install onnx"]*(find_spec("onnx") is None)
    wanted += ["npm install --no-save onnxruntime-web"]*(not all((RUNTIME/name).is_file() for name in RUNTIME_FILES))
    return wanted and ("This site was built without the network: build it again with " + " && ".join(
        [*wanted, "python .ci/make_site.py"]) + ", in the repository's folder.") or ""


def save_onnx(model, path: Path, side: int, crop: int) -> None:
    "The network as an ONNX file: one image as 1 x side x side x 3 numbers from 0 to 255; outputs have names."
    import warnings
    import torch
    from torch import nn
    from torch.onnx import symbolic_helper
    from apse_nb.images import MEAN, STD

    class Answers(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.margin = model.eval(), (side - crop)//2

        def forward(self, pixels):
            inner = pixels[:, self.margin:self.margin + crop, self.margin:self.margin + crop]      # (1, crop, crop, 3)
            out = self.model(((inner/255 - torch.tensor(MEAN))/torch.tensor(STD)).permute(0, 3, 1, 2))
            heads = [(head.class_maps, head.attention, head.confidences) for head in (out.low, out.high)]
            return out.embedding, *heads[0], *heads[1]

    def transpose(g, x):
        return g.op("Transpose", x, perm_i=[0, 2, 1])

    @symbolic_helper.parse_args("v", "is")
    def pool(g, x, size):                # windows of unequal size are a product with a matrix for each direction
        down, across = (nn.functional.adaptive_avg_pool1d(torch.eye(n), m)             # (n, m)
                        for n, m in zip(symbolic_helper._get_tensor_sizes(x)[2:], size))
        x = g.op("MatMul", x, g.op("Constant", value_t=across))
        return g.op("MatMul", g.op("Constant", value_t=down.T.contiguous()), x)

    # what the exporter does not know; the newer one would need another package
    for name, symbol in (("mT", transpose), ("adaptive_avg_pool2d", pool)):
        torch.onnx.register_custom_op_symbolic(f"aten::{name}", symbol, 17)
    names = [f"{head}_{what}" for head in ("low", "high") for what in ("class_maps", "attention", "probabilities")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(Answers(), (torch.zeros(1, side, side, 3),), path, dynamo=False, opset_version=17,
                          input_names=["pixels"], output_names=["embedding", *names])


def network_data(folder: Path) -> dict:
    "The shipped network as ONNX with what runs it, eight scenes, and 200 others with their embeddings."
    from apse_nb.datasets.decoding import load_images
    from apse_nb.emotions import MIKELS
    from apse_nb.training import embed, load_trained
    model, recipe = load_trained("scenes")
    found = dict(missing=what_is_missing(), side=recipe.resize, margin=(recipe.resize - recipe.crop)//2,
                 classes=MIKELS.fine, coarse=MIKELS.coarse, parent=MIKELS.parent)
    if found["missing"]:
        return found
    scenes = load_images("scenes", recipe.resize, "test", limit=208)      # emotions in turn
    chosen, others = np.arange(8), np.arange(8, 208)
    embedded = embed(model, scenes, **recipe.look)
    right = (embedded.scores.argmax(1).numpy() == scenes.labels)[chosen]
    (folder/"network.f16").write_bytes(embedded.embeddings[others].numpy().astype("<f2").tobytes())
    save_onnx(model, folder/"network.onnx", recipe.resize, recipe.crop)
    (folder/"onnxruntime").mkdir()
    for name in RUNTIME_FILES:
        shutil.copy(RUNTIME/name, folder/"onnxruntime"/name)
    examples = save_sprite(scenes.pixels[chosen], folder/"network_examples.png", side=recipe.resize)
    return found | dict(network="network.onnx", embeddings="network.f16", labels=scenes.labels[others].tolist(),
                        sprite=save_sprite(scenes.pixels[others], folder/"network_scenes.jpg", columns=20, side=64),
                        examples=examples | dict(labels=scenes.labels[chosen].tolist(), start=int(right.argmax())))


DATA = {"circle": circle_data, "playground": playground_data, "ranks": ranks_data, "network": network_data}
