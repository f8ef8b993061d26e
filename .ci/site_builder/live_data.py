"What the scripts of the pages without a kernel need from Python: numbers as JSON, images as files beside the page."
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 96        # of a thumbnail, pixels


def save_sprite(pixels: np.ndarray, path: Path, columns: int = 8) -> dict:
    "N square images as one JPEG file, row by row; where the page finds them in it."
    small = [np.asarray(Image.fromarray(p).resize((SIDE, SIDE), Image.LANCZOS)) for p in pixels]
    small += [np.zeros_like(small[0])]*(-len(small) % columns)
    rows = [np.concatenate(small[k:k + columns], axis=1) for k in range(0, len(small), columns)]
    Image.fromarray(np.concatenate(rows)).save(path, quality=85)
    return dict(file=path.name, columns=columns, rows=len(rows))


def circle_data(folder: Path) -> dict:
    "The widget's first state, and its looks."
    from apse_nb.tools.plotting import PULL, PUSH
    from apse_nb.widgets.circle import HIGHEST_SCALE, LOOKS, Circle
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
    from apse_nb.tools.files import data_path
    from apse_nb.tools.plotting import TIER_FRAMES
    from apse_nb.training import Recipe, embed, load_model
    model, facts = load_model(data_path("weights/scenes_apse.safetensors"))
    recipe = Recipe(**facts["recipe"])
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


DATA = {"circle": circle_data, "playground": playground_data, "ranks": ranks_data}
