"""The captured step without a GPU: a recorder that writes down every operation and carries the list out again on the
same memory. What a number in Python or an address that changed would spoil on a GPU, it spoils here."""
import sys
import warnings
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import apse_nb.training as training
from apse_nb.emotions import MIKELS
from apse_nb.negatives import GeneratedEmotionPairLoss, Objective
from apse_nb.network import ABLATION, APSE
from apse_nb.pair_losses import EmotionPairLoss
from apse_nb.scenes import make_scenes
from apse_nb.tools import device
from apse_nb.tools.checkpoint import read_checkpoint
from apse_nb.tools.recipe import Recipe
from apse_nb.tools.run_state import Diverged
from apse_nb.training import fit

WITHOUT_A_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and steps are recorded on it")
ANSWERS = {"_local_scalar_dense", "equal", "nonzero", "_unique2", "masked_select"}
CPU_ONLY = {"check_batch", "check_confidences", "_unit_length"}      # look at numbers, but not on a GPU


class Notes(TorchDispatchMode):
    "Writes down every operation with its arguments and results."
    def __init__(self):
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if operation.overloadpacket.__name__ in ANSWERS and not called_from(CPU_ONLY):
            raise RuntimeError(f"{operation} asks for a result while the step is recorded")
        result = operation(*args, **kwargs)
        self.done.append((operation, args, kwargs, result))
        return result


class Watched(TorchDispatchMode):
    "Changes nothing. torch itself takes other formulas for some gradients while such a mode looks on (last digits)."
    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        return operation(*args, **(kwargs or {}))


class NoRecorder:
    "Takes the place of `CudaGraphs` and carries the step itself out again, watched as a recorded one is."
    aside = nullcontext

    @staticmethod
    def rehearse(function):
        function()
        return ""

    @staticmethod
    def record(function):
        def again():
            with Watched():
                function()
        return again


def called_from(names):
    frame = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name in names:
            return True
        frame = frame.f_back
    return False


class Recorder:
    "Takes the place of `CudaGraphs`."
    aside, recordings, replays = nullcontext, 0, 0
    rehearse = NoRecorder.rehearse

    @classmethod
    def record(cls, function):
        cls.recordings += 1
        before = [(t, t.detach().clone()) for t in cls.state()]
        try:
            with Notes() as notes:
                function()
        finally:
            with torch.no_grad():
                for tensor, value in before:           # recording does nothing, also where it fails
                    tensor.copy_(value)

        @torch.no_grad()
        def replay():
            cls.replays += 1
            for operation, args, kwargs, old in notes.done:
                new = operation(*args, **kwargs)
                for then, now in zip(tree_leaves(old), tree_leaves(new)):
                    if torch.is_tensor(then) and then.data_ptr() != now.data_ptr():
                        then.copy_(now)                # where the later operations look for it
        return replay


@pytest.fixture
def recorder(monkeypatch):
    "`fit` records its steps as on a GPU."
    class Mine(Recorder):
        pass
    progress = training.RunState.__init__

    def remember(self, *args):
        progress(self, *args)
        Mine.state = lambda: [*self.model.state_dict().values(), *self.objective.state_dict().values(),
                              *self.sums.values(), *(s["momentum_buffer"] for s in self.optimizer.state.values())]
    monkeypatch.setattr(training.RunState, "__init__", remember)
    monkeypatch.setattr(training, "recorder_of", lambda device: Mine)
    return Mine


TRAIN, VALID = make_scenes(160, size=32, seed=0, workers=1), make_scenes(40, size=32, seed=1, workers=1)
RECIPE = Recipe.scenes(epochs=3, resize=32, crop=28, lr=0.02)


def network(method="gep", seed=0):
    torch.manual_seed(seed)
    return APSE(MIKELS, backbone="scene_net", weights="shapes", dim=16, **ABLATION[method])


def eager(*args, recorder=None, **kwargs):
    "The same training with no recorder at all, or with another one."
    with pytest.MonkeyPatch.context() as m:
        m.setattr(training, "recorder_of", lambda device: recorder)
        return fit(*args, progress=False, **kwargs)


def same(a, b):
    "Two runs ended with the same weights and the same log."
    assert all(torch.equal(v, b.model.state_dict()[k]) for k, v in a.model.state_dict().items())
    fixed = [[{k: v for k, v in row.items() if k not in ("minutes", "images_per_second")} for row in run.log]
             for run in (a, b)]
    assert fixed[0] == fixed[1]


@WITHOUT_A_GPU
@pytest.mark.parametrize("images_on", ["host", "device"])
@pytest.mark.parametrize("method, loss", [("gep", GeneratedEmotionPairLoss(MIKELS)), ("softmax", None)])
def test_a_recorded_step_is_the_eager_one_bit_for_bit(method, loss, images_on, recorder):
    usual = eager(network(method), TRAIN, RECIPE, loss, VALID)
    watched = eager(network(method), TRAIN, RECIPE, loss, VALID, recorder=NoRecorder)
    recorded = fit(network(method), TRAIN, RECIPE, loss, VALID, progress=False, images_on=images_on)
    assert recorder.recordings == 1 and recorder.replays == 15 - 3         # three calls before the recording
    same(watched, recorded)
    torch.testing.assert_close(dict(usual.model.state_dict()), dict(recorded.model.state_dict()), rtol=1e-4, atol=1e-5)
    assert recorded.notes[1] == "step: recorded after a few steps and replayed" and usual.notes == ()


@WITHOUT_A_GPU
def test_bfloat16_and_natural_batches_without_pairs(recorder, monkeypatch):
    monkeypatch.setattr(device, "has_bf16", lambda kind: True)
    recipe = replace(RECIPE, epochs=1, bf16=True, sampler="natural")
    same(eager(network("softmax"), TRAIN, recipe, None), fit(network("softmax"), TRAIN, recipe, None, progress=False))
    assert recorder.recordings == 1


class Weighed(Objective):
    "An objective with a weight of its own."
    reads_labels = False

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, output, batch):
        return {"loss": ((self.weight*output.embedding.sum(1) - batch.targets[:, 0])**2).mean()}


@WITHOUT_A_GPU
def test_targets_and_weights_of_an_objective(recorder):
    targets = torch.rand(len(TRAIN), 2, generator=torch.Generator().manual_seed(0))
    objectives = Weighed(), Weighed()
    same(eager(network(), TRAIN, RECIPE, objectives[0], targets=targets),
         fit(network(), TRAIN, RECIPE, objectives[1], targets=targets, progress=False))
    assert objectives[0].weight != 1 and torch.equal(objectives[0].weight, objectives[1].weight)


@WITHOUT_A_GPU
def test_a_cut_run_is_recorded_again_and_ends_the_same(tmp_path, recorder):
    whole = fit(network(), TRAIN, RECIPE, EmotionPairLoss(MIKELS), VALID, progress=False)

    def lights_out(run):
        if len(run.log) == 2:
            raise RuntimeError("the lights went out")
    with pytest.raises(RuntimeError, match="lights"):
        fit(network(), TRAIN, RECIPE, EmotionPairLoss(MIKELS), VALID, tmp_path, checkpoint_seconds=0, progress=False,
            callbacks=[lights_out])
    step = read_checkpoint(tmp_path/"last.safetensors")[1]["progress"]["step"]
    assert step == 9                                   # in the second epoch, whose end was not reached
    resumed = fit(network(seed=1), TRAIN, RECIPE, EmotionPairLoss(MIKELS), VALID, tmp_path, progress=False)
    same(whole, resumed)
    assert recorder.recordings == 3


@WITHOUT_A_GPU
def test_a_recorded_run_that_diverges_says_so(tmp_path, recorder):
    with pytest.raises(Diverged, match="lower the learning rate"):
        fit(network(), TRAIN, replace(RECIPE, lr=1e4), Unchecked(), out=tmp_path, progress=False)
    assert recorder.replays > 0 and not (tmp_path/"last.safetensors").exists()


class Unchecked(Objective):
    "Does not look at what it is given, like a loss on a GPU."
    reads_labels = False

    def forward(self, output, batch):
        return {"loss": torch.nn.functional.cross_entropy(100*output.high.scores, batch.targets)}


class Asks(Objective):
    "Looks at a number in every step."
    reads_labels = False

    def forward(self, output, batch):
        assert output.embedding.sum().item() < 1e9
        return {"loss": output.embedding.square().mean()}


@WITHOUT_A_GPU
def test_what_cannot_be_recorded_runs_eagerly_and_says_why(recorder):
    run = fit(network(), TRAIN, replace(RECIPE, epochs=2), Asks(), progress=False)
    assert recorder.replays == 0
    assert [note for note in run.notes if "eager, since" in note and "asks for a result" in note] == [run.notes[-1]]
    same(eager(network(), TRAIN, replace(RECIPE, epochs=2), Asks()), run)
    run = fit(network(), TRAIN, replace(RECIPE, epochs=1, sampler="natural"), EmotionPairLoss(MIKELS), progress=False)
    assert recorder.recordings == 1 and "differ from batch to batch" in run.notes[1]


@WITHOUT_A_GPU
def test_a_number_that_only_python_knows_is_noticed(recorder):
    "The recorder is worth something: a learning rate that is not a tensor stays what it was, and the runs differ."
    usual, made = eager(network(), TRAIN, RECIPE, EmotionPairLoss(MIKELS)), training._optimizer

    def with_numbers(model, objective, recipe, recorder, device):
        optimizer, rates, highest = made(model, objective, recipe, recorder, device)
        for group, rate in zip(optimizer.param_groups, highest):
            group["lr"] = rate
        return optimizer, rates, highest
    with pytest.MonkeyPatch.context() as m:
        m.setattr(training, "_optimizer", with_numbers)
        wrong = fit(network(), TRAIN, RECIPE, EmotionPairLoss(MIKELS), progress=False)
    with pytest.raises(AssertionError):
        same(usual, wrong)


def test_memory_that_does_not_suffice_is_one_sentence(monkeypatch):
    monkeypatch.setattr(device, "free_bytes", lambda device: 100_000)
    with pytest.raises(ValueError, match="images_on='host'"):
        device.place_images(TRAIN, torch.device("cpu"), "device")
    stored, note = device.place_images(TRAIN, torch.device("cpu"))
    assert stored is None and "main memory" in note
    monkeypatch.setattr(device, "free_bytes", lambda device: 10**9)
    stored, note = device.place_images(TRAIN, torch.device("cpu"))
    assert torch.equal(stored, torch.from_numpy(TRAIN.pixels)) and "in the device's memory" in note
    with pytest.raises(ValueError, match="'auto', 'device' or 'host'"):
        device.place_images(TRAIN, torch.device("cpu"), "there")

    class Full(Objective):
        def forward(self, output, batch):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    with pytest.raises(ValueError, match="lower images_per_class or crop"):
        fit(network(), TRAIN, RECIPE, Full(), progress=False)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("images_on", ["host", "device"])
def test_on_a_gpu_recorded_and_eager_training_agree(images_on, monkeypatch):
    settings = dict(train=TRAIN, recipe=RECIPE, objective=GeneratedEmotionPairLoss(MIKELS), progress=False)
    recorded = fit(network(), images_on=images_on, **settings)
    assert recorded.notes[-1] == "step: recorded after a few steps and replayed"
    monkeypatch.setattr(training, "_why_eager", lambda *_: "it is compared")
    usual = fit(network(), images_on=images_on, **settings)
    assert [row["loss"] for row in recorded.log] == pytest.approx([row["loss"] for row in usual.log], abs=1e-2)


class Stream:
    "A CUDA stream's name."
    def wait_stream(self, other):
        pass


@WITHOUT_A_GPU
def test_a_step_that_waits_is_not_recorded_and_a_failed_recording_gives_the_stream_back(monkeypatch):
    "`CudaGraphs` itself, with the functions of torch.cuda that it calls replaced by notes."
    done, usual, mode = [], Stream(), ["default"]
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: usual)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: done.append(stream))
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: mode[0])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda new: mode.__setitem__(0, new))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", object)

    def waits(x):
        done.append("step")
        if mode[0] == "warn":
            warnings.warn("called a synchronizing CUDA operation")

    step = device.Captured(waits)
    for _ in range(5):
        step(x=torch.zeros(1))
    assert done == ["step"]*5 and step.trouble == "it asks the device for a result" and mode == ["default"]

    @contextmanager
    def broken(graph, capture_error_mode):
        try:
            yield
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")
    monkeypatch.setattr(torch.cuda, "graph", broken)
    done.clear()

    def cannot(x):
        done.append("step")
        if len(done) == 4:
            raise RuntimeError("operation not permitted when stream is capturing")
    step = device.Captured(cannot)
    for _ in range(5):
        step(x=torch.zeros(1))
    assert done == ["step"]*4 + [usual, "step", "step"]         # three calls, the recording, its end, two eager calls
    assert step.trouble == "operation not permitted when stream is capturing"


def test_bfloat16_is_used_where_there_are_instructions_for_it(monkeypatch):
    recipe, seen = replace(RECIPE, epochs=1, bf16=True), []
    monkeypatch.setattr(training, "has_bf16", lambda kind: False)
    monkeypatch.setattr(device, "has_bf16", lambda kind: False)
    without = fit(network(), TRAIN, recipe, None, progress=False)
    assert without.notes[0] == device.FLOAT32 and "float32" in device.FLOAT32
    same(without, fit(network(), TRAIN, replace(recipe, bf16=False), None, progress=False))
    for instructions in (False, True):
        monkeypatch.setattr(device, "has_bf16", lambda kind: instructions)
        with device.mixed_precision(torch.device("cpu"), bf16=True):
            seen.append((torch.ones(2, 2) @ torch.ones(2, 2)).dtype)
    assert seen == [torch.float32, torch.bfloat16]


@pytest.mark.parametrize("flags, answer", [((True, False), True), ((False, True), True), ((False, False), False)])
def test_a_processor_is_asked(flags, answer, monkeypatch):
    for name, flag in zip(("_is_avx512_bf16_supported", "_is_amx_tile_supported"), flags):
        monkeypatch.setattr(torch.cpu, name, lambda flag=flag: flag, raising=False)
    monkeypatch.setattr(device.platform, "machine", lambda: "x86_64")
    assert device.has_bf16.__wrapped__("cpu") is answer


def test_the_commands_say_where_the_images_are_kept(monkeypatch, tmp_path):
    from apse_nb.report import commands
    import apse_nb.experiments as experiments
    import apse_nb.report.html_page as html_page
    seen = []

    def stop(*args, images_on, **settings):
        raise ValueError(f"kept on the {images_on}")
    monkeypatch.setattr(experiments, "fit", stop)
    monkeypatch.setattr(commands, "_run_table", lambda table, rows, files, profile, *a, **k: seen.append(profile))
    monkeypatch.setattr(html_page, "execute_report", lambda out, **parameters: seen.append(parameters) or out)

    def run(command, *words):
        return CliRunner().invoke(command, [*words, "--out", str(tmp_path/"out")])
    result = run(commands.apse_train, "scenes", "--profile", "tiny", "--images-on", "host")
    assert result.exit_code == 2 and result.output == "apse_train: kept on the host\n"
    for words in (["--table", "2"], []):
        assert run(commands.apse_reproduce, "--profile", "tiny", "--images-on", "device", *words).exit_code == 0
    assert seen[0].images_on == seen[1]["images_on"] == "device"
    for command in (commands.apse_train, commands.apse_reproduce):
        wrong = run(command, "scenes", "--images-on", "there") if command is commands.apse_train else run(
            command, "--images-on", "there")
        assert wrong.exit_code == 2 and "'auto', 'device', 'host'" in wrong.output
        assert "rows side by side" in " ".join(run(command, "--help").output.split())
