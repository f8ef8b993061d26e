"""No loss makes the processor wait for a GPU: checked without one, on a stand-in that keeps its numbers in main memory
and refuses what would wait."""
from contextlib import contextmanager, nullcontext
from unittest.mock import patch

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from apse_nb.methods.adml import AdaptiveSimilarityLoss, RULES
from apse_nb.methods.losses import BinomialDevianceLoss
from apse_nb.emotions import EKMAN, MIKELS
from apse_nb.negatives import GeneratedEmotionPairLoss
from apse_nb.pair_losses import EmotionPairLoss, NPairLoss
from apse_nb.methods.systems import SentimentConstraintLoss

# operations whose result the processor has to see
ANSWERS = {"_local_scalar_dense", "equal", "nonzero", "_unique2", "masked_select"}
DEVICE = "lazy"  # a device that PyTorch knows by name and this build has no code for


class Waits(RuntimeError):
    "The operation would wait for the device, or mixes tensors of two devices."


class Remote(torch.Tensor):
    "A tensor that says it is on the device; its numbers are in `.here`."
    @staticmethod
    def __new__(cls, here):
        return torch.Tensor._make_wrapper_subclass(cls, here.shape, strides=here.stride(), dtype=here.dtype,
                                                   device=DEVICE)
    def __init__(self, here):
        self.here = here
    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return carry_out(operation, args, kwargs or {})


def carry_out(operation, args, kwargs):
    "The operation on the numbers in main memory; `Waits` where a GPU would not go on at once."
    name, tensors = operation.overloadpacket.__name__, [t for t in tree_leaves((args, kwargs)) if torch.is_tensor(t)]
    remote = [isinstance(t, Remote) for t in tensors]
    asked = kwargs.get("device")
    goal = torch.device(asked).type if asked is not None else DEVICE if any(remote) else "cpu"
    if any(remote):
        by_mask = name.startswith("index") and any(torch.is_tensor(t) and t.dtype == torch.bool
                                                   for t in tree_leaves(args[1]))
        if name in ANSWERS or by_mask or goal == "cpu":
            raise Waits(f"{name} has to see numbers of the device")
        if not all(r or not t.ndim for r, t in zip(remote, tensors)):
            raise Waits(f"{name} is given tensors of two devices")
    elif tensors and goal == DEVICE and not kwargs.get("non_blocking"):
        raise Waits(f"{name} copies to the device and waits until it is done")
    args, kwargs = tree_map_only(Remote, lambda t: t.here, (args, kwargs))
    result = operation(*args, **kwargs | (dict(device="cpu") if asked is not None else {}))
    return tree_map_only(torch.Tensor, Remote, result) if goal == DEVICE else result


class EveryOperation(TorchDispatchMode):
    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return carry_out(operation, args, kwargs or {})


@contextmanager
def stand_in():
    """Tensors can be moved to `DEVICE` while it is active. Autocast does not know the device and is left out; these
    losses switch it off anyway."""
    with EveryOperation(), patch("torch.autocast", lambda *_, **__: nullcontext()):
        yield


def batch(taxonomy, seed=0):
    "Unit vectors, labels and confidences of a balanced batch in random order."
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(len(taxonomy)).repeat_interleave(4)[torch.randperm(4*len(taxonomy), generator=g)]
    return F.normalize(torch.randn(len(labels), 24, generator=g)), labels, torch.randn(len(labels), len(taxonomy),
            generator=g).softmax(1)


LOSSES = {"n_pair": NPairLoss(), "ep": EmotionPairLoss(MIKELS), "ep, ekman": EmotionPairLoss(EKMAN, 8.),
          "gep": GeneratedEmotionPairLoss(MIKELS),
          "gep, lambda constant": GeneratedEmotionPairLoss(EKMAN, gradient_through_lambda=False),
          "gep, eq12": GeneratedEmotionPairLoss(MIKELS, direction="eq12"),
          "gep, printed positive": GeneratedEmotionPairLoss(MIKELS, generate_in=("intra",), positive="printed"),
          **{f"adaptive, {rule}": AdaptiveSimilarityLoss(MIKELS, rule) for rule in RULES},
          "sentiment constraint": SentimentConstraintLoss(MIKELS),
          "binomial deviance": BinomialDevianceLoss(MIKELS, 24)}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_never_waits_for_the_device(name):
    loss = LOSSES[name]
    embeddings, labels, confidences = batch(getattr(loss, "taxonomy", None) or MIKELS)
    floats = [embeddings, confidences] if getattr(loss, "needs_confidences", False) else [embeddings]
    given = [t.clone().requires_grad_() for t in floats]
    value = loss(given[0], labels, *given[1:])
    wanted = torch.autograd.grad(value, given, allow_unused=True)
    with stand_in():
        sent = [t.to(DEVICE, non_blocking=True).requires_grad_() for t in floats]
        found = loss(sent[0], labels, *sent[1:])                                      # the labels stay where they are
        slopes = torch.autograd.grad(found, sent, allow_unused=True)
    assert found.device.type == DEVICE and torch.equal(found.here, value)
    for slope, want in zip(slopes, wanted):
        assert slope is want is None or torch.equal(slope.here, want)


def test_the_stand_in_notices_what_would_wait():
    with stand_in():
        x = torch.arange(4.).to(DEVICE, non_blocking=True)
        mask, here = x > 1, torch.ones(4)
        for waiting in (x.sum().item, lambda: bool(mask.any()), mask.nonzero, lambda: x[mask], x.cpu,
                        lambda: x + here, lambda: x[here.long()],
                        lambda: here.to(DEVICE), lambda: torch.unique(x), lambda: torch.equal(x, x)):
            with pytest.raises(Waits):
                waiting()
        assert (x[torch.zeros(2, dtype=torch.long, device=DEVICE)] + 1).here.tolist() == [1, 1]