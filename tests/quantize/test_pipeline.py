"""`edgevit.quantize` as a library: any net, images in any form, and nothing left behind."""

from __future__ import annotations

import copy
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgevit
from edgevit.data.distributed import Group
from edgevit.data.workers import WorkerLost
from edgevit.errors import GateFailed, InputError
from edgevit.quantize import finetune
from edgevit.quantize.net import QuantizedNet
from edgevit.quantize.options import QuantizeOptions
from edgevit.quantize.parts import Parts, check_enough
from edgevit.quantize.pipeline import Result, quantize
from edgevit.quantize.subject import key_of
from edgevit.runs.folder import remove_run, run_folder
from tests.goldens import graph_sha256
from tests.random_nets import random_net

SIZE, CLASSES = 16, 3


class Tiny(nn.Module):
    """A net of a user's own: norms to fold, a ReLU to fuse, a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.GELU())
        self.mix = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.mix(self.block(x))
        return self.head(x.mean((2, 3), keepdim=True).flatten(1))


def tiny() -> Tiny:
    torch.manual_seed(0)
    net = Tiny().train()
    for _ in range(4):
        net(torch.randn(16, 3, SIZE, SIZE))  # the norm sees something
    return net.eval()


def pictures(count: int, seed: int) -> list[tuple[np.ndarray, int]]:
    """Each class is a colour, with noise."""
    random = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        noise = random.integers(0, 90, (SIZE, SIZE, 3), np.uint8)
        noise[..., i % CLASSES] += 120
        rows.append((noise, i % CLASSES))
    return rows


TRAIN, VAL = pictures(48, 1), pictures(24, 2)


def test_a_checkpoint_is_named_by_its_path(tmp_path: Path) -> None:
    rows = [(np.zeros((32, 32, 3), np.uint8), 0)]
    with pytest.raises(InputError, match=r"missing.pth"):
        edgevit.quantize(tmp_path / "missing.pth", rows, epochs=0)


@pytest.fixture(scope="module")
def model() -> Tiny:
    return tiny()


@pytest.fixture(scope="module")
def result(model: Tiny) -> Result:
    return edgevit.quantize(
        model, TRAIN, VAL, epochs=2, max_drop=100, allow_poor_float=True, batch_size=16
    )


def test_a_net_that_is_no_repvit_is_quantized(model: Tiny, result: Result) -> None:
    info = result.program.info
    assert info.model.variant == "Tiny" and info.labels == ("0", "1", "2")
    assert info.preprocessing.image_size == SIZE
    assert info.provenance["trace_proof"]["max_abs_delta"] < 1e-4
    assert "fusion_proof" not in info.provenance and "checkpoint" not in info.provenance
    assert info.provenance["model"] == {"class": "Tiny", "sha256": key_of(model)}
    assert result.gate.count == len(VAL) and "allowed 100.00" in str(result.gate)
    assert result.history.step == round(2 * 43 / 16)
    assert set(result.metrics) == {
        "float_top1", "ptq_uncorrected_top1", "ptq_top1", "program_top1", "program_float_agreement"
    }  # fmt: skip
    images = torch.stack([torch.from_numpy(p) for p, _ in VAL])
    logits = result.program.run(info.preprocessing.normalise(images.numpy()))
    assert result.program.reference is not None
    assert np.array_equal(logits.numpy(), result.program.reference.logits)
    with torch.no_grad():
        expected = model(info.preprocessing.normalise(images.numpy()))
    assert np.allclose(result.program.reference.float_logits, expected.numpy(), atol=1e-4)


def test_ptq_is_measured_in_integers(model: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the program: the net that fake-quantizes is run for the correction only."""

    def forward(self: QuantizedNet, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("a figure by floats")

    monkeypatch.setattr(QuantizedNet, "forward", forward)
    found = edgevit.quantize(model, TRAIN, VAL, epochs=0, max_drop=100, allow_poor_float=True)
    assert found.metrics["ptq_top1"] == pytest.approx(found.metrics["program_top1"], abs=1e-9)
    assert 0 <= found.metrics["ptq_uncorrected_top1"] <= 1


@pytest.mark.parametrize(("name", "value"), [
    ("head.weight", np.nan), ("stem.1.running_var", np.inf), ("mix.bias", -np.inf),
])  # fmt: skip
def test_a_net_with_values_that_are_no_numbers_is_refused(
    name: str, value: float, tmp_path: Path
) -> None:
    broken = tiny()
    broken.state_dict()[name].view(-1)[1] = value
    with pytest.raises(InputError, match=f"'{name}' holds values that are not finite"):
        edgevit.quantize(broken, TRAIN, VAL, epochs=0, run_dir=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_the_program_goes_on_into_an_artifact(result: Result, tmp_path: Path) -> None:
    artifact = result.program.compile("tflite", tmp_path / "tflite")
    assert artifact.parity(VAL).first_departure is None
    assert artifact.classify(VAL[1][0])[0].label in ("0", "1", "2")
    path = result.program.save(tmp_path / "model.evq")
    assert edgevit.Program.load(path).info == result.program.info


def test_a_library_leaves_everything_as_it_was(
    model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    before, state = key_of(model), torch.get_rng_state()
    path, training = os.environ["PATH"], model.training
    torch.use_deterministic_algorithms(False)
    edgevit.quantize(model, TRAIN, VAL, epochs=0, max_drop=100, allow_poor_float=True)
    assert capfd.readouterr() == ("", "")
    assert not torch.are_deterministic_algorithms_enabled()
    assert key_of(model) == before and model.training == training
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state) and os.environ["PATH"] == path
    assert list(tmp_path.iterdir()) == []


def test_a_library_speaks_through_its_logger(model: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "edgevit"):
        edgevit.quantize(model, TRAIN, epochs=0, max_drop=100, allow_poor_float=True)
    said = "\n".join(caplog.messages)
    assert (
        "Tiny, 3 classes, 16 px; fine-tuning on 39 images, selecting on 4, reporting on 5" in said
    )
    assert "gains and biases corrected" in said and "drop " in said


def test_a_failed_gate_hands_over_the_result(model: Tiny) -> None:
    with pytest.raises(GateFailed, match="accuracy gate failed") as failed:
        quantize(model, TRAIN, VAL, QuantizeOptions(epochs=0), max_drop=-100, allow_poor_float=True)
    found = failed.value.result
    assert isinstance(found, Result) and not found.gate.passed
    assert found.program.info.metrics


def test_a_run_folder_goes_on_and_belongs_to_one_run(
    model: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    asked = {
        "epochs": 1,
        "batch_size": 16,
        "max_drop": 100,
        "allow_poor_float": True,
        "run_dir": run,
    }
    first = edgevit.quantize(model, TRAIN, VAL, **asked)
    with caplog.at_level(logging.INFO, "edgevit"):
        again = edgevit.quantize(model, TRAIN, VAL, **asked)
    assert "calibrating" not in "\n".join(caplog.messages)
    assert again.program.to_bytes() == first.program.to_bytes()
    other = tiny()
    with torch.no_grad():
        other.head.bias.add_(1)
    with pytest.raises(InputError, match="another model"):
        edgevit.quantize(other, TRAIN, VAL, **asked)
    assert edgevit.quantize(other, TRAIN, VAL, fresh=True, **asked).program


def test_the_images_form_does_not_matter(model: Tiny, result: Result) -> None:
    rules = result.program.info.preprocessing

    def loader(rows: list) -> torch.utils.data.DataLoader:
        tensors = [(rules.normalise(p[None])[0], c) for p, c in rows]
        return torch.utils.data.DataLoader(tensors, batch_size=5, shuffle=True)

    found = edgevit.quantize(
        model,
        loader(TRAIN),
        loader(VAL),
        epochs=2,
        max_drop=100,
        allow_poor_float=True,
        batch_size=16,
    )
    assert found.metrics == result.metrics
    assert found.program.graph().quantizers == result.program.graph().quantizers


def normalised(picture: np.ndarray) -> torch.Tensor:
    """As the library does by default."""
    rules = edgevit.from_sequence([(picture, 0)], classes=["0", "1", "2"]).preprocessing
    return rules.normalise(picture[None])[0]


def constant(images: torch.Tensor) -> torch.Tensor:
    return images.new_zeros(len(images), CLASSES)


@pytest.mark.parametrize(("teacher", "name"), [(tiny(), "Tiny"), (constant, "constant")])
def test_a_teacher_is_a_net_or_a_function(model: Tiny, teacher: object, name: str) -> None:
    found = edgevit.quantize(
        model,
        TRAIN,
        VAL,
        epochs=1,
        max_drop=100,
        allow_poor_float=True,
        batch_size=16,
        teacher=teacher,
    )
    assert found.program.info.provenance["teacher"] == name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoks": 3}, r"quantize has no option epoks; QuantizeOptions has activation"),
        ({"epochs": -1.0}, "epochs"),
        ({"task": "juggling"}, "task 'juggling' is not one of"),
        ({"val": TRAIN}, "never saw"),
        ({"val": edgevit.from_sequence(VAL, classes=["a", "b", "c"])}, "other classes"),
        ({"val": edgevit.from_sequence(VAL, mean=(0, 0, 0))}, "pre-processed otherwise"),
        (
            {"train": [row for row in pictures(24, 3) if row[1] < 2]},
            r"the net has 3 classes, the images have 2",
        ),
        ({"model": 7}, "int is no model"),
        ({"train": 7}, "int is no set of images"),
        ({"teacher": "nowhere"}, "neither a checkpoint"),
        ({"teacher": "nowhere.ckpt"}, "nowhere.ckpt: no such file"),
        ({"teacher": nn.Flatten()}, "it has 768 classes, the student has 3"),
        ({"teacher": nn.Linear(7, 3)}, "it fails on an image of 3×16×16"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Linear(768, 1))}, "the net has one logit"),
        ({"model": random_net(features_only=True)}, "a backbone.s maps are the task features"),
        ({"model": random_net(in_channels=1)}, "the net takes images of 1 channel"),
    ],
)
def test_bad_input_is_named(model: Tiny, change: dict, message: str, tmp_path: Path) -> None:
    asked = {
        "model": model,
        "train": TRAIN,
        "val": None,
        "max_drop": 100,
        "allow_poor_float": True,
        **change,
    }
    run = tmp_path / "run"
    with pytest.raises(InputError, match=message):
        edgevit.quantize(run_dir=run, epochs=asked.pop("epochs", 0), **asked)
    assert not run.exists()


class Branching(nn.Module):
    """Its graph is another one for other values: torch.export sees one of them only."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.calls = tiny(), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x) if torch.compiler.is_exporting() else self.net(x) * 2


def test_a_graph_that_computes_something_else_is_refused() -> None:
    with pytest.raises(GateFailed, match="its graph's outputs differ from its own"):
        edgevit.quantize(Branching(), TRAIN, VAL, epochs=0, max_drop=100, allow_poor_float=True)


def test_several_processes_need_a_folder_that_they_share(tmp_path: Path) -> None:
    code = (
        "from edgevit.runs.folder import run_folder\n"
        "from edgevit.data.distributed import Group\n"
        "group = Group.alone(); group.size = 2\n"
        "with run_folder(None, 'key', False, group): pass"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "give run_dir=" in done.stderr


@pytest.mark.parametrize(
    "few",
    [
        {"epochs": 2, "snapped_share": 0},
        {"epochs": 16 / 43},  # one step
        {"epochs": 16 / 43, "snapped_share": 0},
        {"epochs": 1, "evaluations": 100},
    ],
    ids=["never-snapped", "one-step", "one-step-never-snapped", "more-evaluations-than-steps"],
)
def test_a_run_ends_with_a_state_whatever_its_length(
    model: Tiny, tmp_path: Path, few: dict[str, float]
) -> None:
    asked = {"max_drop": 100, "batch_size": 16, "allow_poor_float": True}
    asked |= {"run_dir": tmp_path / "run", **few}
    found = edgevit.quantize(model, TRAIN, VAL, **asked)
    steps = [each["step"] for each in found.history.evaluations]
    # Before the training, and once behind it at least; either may be the better one.
    assert steps[0] == 0 and steps[-1] == found.history.step > 0
    assert found.history.best_step in steps
    again = edgevit.quantize(model, TRAIN, VAL, **asked)
    assert again.program.to_bytes() == found.program.to_bytes()


def test_a_training_that_does_not_help_is_said_to_and_left(
    model: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a rate that only does harm: the program is that of a run without fine-tuning."""
    asked = {"max_drop": 100, "batch_size": 16, "allow_poor_float": True}
    with caplog.at_level(logging.INFO, "edgevit"):
        found = edgevit.quantize(model, TRAIN, VAL, epochs=1, lr=0.5, ema=0.0, **asked)
    assert "fine-tuning did not help: on the selection images its loss is" in caplog.text
    first, *others = found.history.evaluations
    assert found.history.best_step == first["step"] == 0
    assert found.history.best_loss == first["holdout_loss"]
    assert all(each["holdout_loss"] > first["holdout_loss"] for each in others)
    assert found.program.info.provenance["selection"]["best_step"] == 0
    without = edgevit.quantize(model, TRAIN, VAL, epochs=0, **asked)
    assert graph_sha256(found.program.graph()) == graph_sha256(without.program.graph())


def test_a_training_that_helps_is_kept(model: Tiny, caplog: pytest.LogCaptureFixture) -> None:
    """From a teacher that gives other logits than the float net."""
    teacher = copy.deepcopy(model)
    with torch.no_grad():
        teacher.head.bias.add_(torch.tensor([2.0, 0.0, -2.0]))
    asked = {"max_drop": 100, "batch_size": 8, "allow_poor_float": True, "lr": 1e-2}
    with caplog.at_level(logging.INFO, "edgevit"):
        found = edgevit.quantize(model, TRAIN, VAL, epochs=5, teacher=teacher, **asked)
    assert found.history.best_step > 0 and "did not help" not in caplog.text
    first = found.history.evaluations[0]
    assert found.history.best_loss is not None
    assert first["step"] == 0 and first["holdout_loss"] > found.history.best_loss


def test_equalized_channels_and_ranges_are_options(
    model: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    asked = {"epochs": 0, "max_drop": 100, "allow_poor_float": True}
    with caplog.at_level(logging.INFO, "edgevit"):
        found = edgevit.quantize(model, TRAIN, VAL, **asked)
    assert "equalized" in caplog.text and "allowed" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "edgevit"):
        plain = edgevit.quantize(model, TRAIN, VAL, equalize=False, **asked)
        wide = edgevit.quantize(model, TRAIN, VAL, equalize=False, ranges="minmax", **asked)
    assert "equalized" not in caplog.text
    proof = found.program.info.provenance["equalization"]
    assert proof["kept"] and proof["max_abs_delta"] <= proof["bound"] and proof["channels"] > 0
    assert plain.program.info.provenance["equalization"] is None
    graphs = [each.program.graph() for each in (found, plain, wide)]
    assert len({graph_sha256(graph) for graph in graphs}) == 3
    assert all(graph.tensors() == graphs[0].tensors() for graph in graphs)
    scales = [sum(q.scale for q in graph.activations().values()) for graph in graphs[1:]]
    assert scales[0] < scales[1], "ranges of least error are narrower"


def test_agreement_with_float_can_be_asked_for(tmp_path: Path) -> None:
    """In a run's folder: asking for less afterwards costs no training."""
    net = tiny()
    with torch.no_grad():  # two logits that differ by less than a step of int8, and one far below
        net.head.weight[1] = net.head.weight[0] + 1e-3 * torch.randn(8)
        net.head.bias.copy_(torch.tensor([0.0, 0.0, -9.0]))
        median = (
            net(torch.stack([normalised(p) for p, _ in VAL])) @ torch.tensor([-1.0, 1, 0])
        ).median()
        net.head.bias[0] += median
    asked = {"epochs": 0, "max_drop": 100, "allow_poor_float": True, "run_dir": tmp_path / "run"}
    with pytest.raises(GateFailed, match=r"of the predictions agree, at least 99.00 % must") as met:
        edgevit.quantize(net, TRAIN, VAL, min_agreement=99, **asked)
    failed = met.value.result
    assert isinstance(failed, Result)
    agreement = failed.gate.to_json()["agreement"]
    assert agreement < 99
    found = edgevit.quantize(net, TRAIN, VAL, min_agreement=agreement, **asked)
    assert found.gate.passed
    assert found.program.info.provenance["options"]["min_agreement"] == agreement


def test_a_training_that_diverges_is_said_to(model: Tiny) -> None:
    def broken(images: torch.Tensor) -> torch.Tensor:
        return images.new_full((len(images), CLASSES), float("nan"))

    asked = {"epochs": 1, "batch_size": 16, "allow_poor_float": True, "teacher": broken}
    with pytest.raises(GateFailed, match="diverged"):
        edgevit.quantize(model, TRAIN, VAL, **asked)


@pytest.mark.parametrize("rows", [TRAIN[:1], TRAIN[:2]])
def test_too_few_images_are_refused_before_the_work(model: Tiny, rows: list) -> None:
    train = edgevit.from_sequence(rows, classes=["0", "1", "2"])
    with pytest.raises(InputError, match="left to learn from"):
        edgevit.quantize(model, train, edgevit.from_sequence(VAL, like=train), holdout=0.999)
    with pytest.raises(InputError, match="left to learn from"):
        edgevit.quantize(model, edgevit.from_sequence(rows[:1], classes=["0", "1", "2"]))


def test_a_second_run_in_the_same_folder_is_refused_before_its_training(tmp_path: Path) -> None:
    group = Group.alone()
    with run_folder(tmp_path / "run", "key", False, group) as folder:
        with (
            pytest.raises(InputError, match="another run is working there"),
            run_folder(tmp_path / "run", "key", True, group),
        ):
            pytest.fail("the body must not run")
        assert (folder / "run.json").exists()
    with run_folder(tmp_path / "run", "key", False, group):
        pass


def test_fresh_removes_only_what_a_run_wrote(tmp_path: Path) -> None:
    group, folder = Group.alone(), tmp_path / "run"
    with run_folder(folder, "key", False, group):
        (folder / "state.safetensors").touch()
    (folder / "thesis.tex").touch()
    with pytest.raises(InputError, match="thesis.tex"), run_folder(folder, "other", True, group):
        pytest.fail("the body must not run")
    assert sorted(p.name for p in folder.iterdir()) == [
        "run.json", "state.safetensors", "thesis.tex"
    ]  # fmt: skip
    assert not remove_run(folder)
    assert [p.name for p in folder.iterdir()] == ["thesis.tex"]
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "run.json").write_text('{"mine": 1}')
    (foreign / "state.safetensors").write_text("mine")
    with pytest.raises(InputError, match="not written by edgevit"):
        run_folder(foreign, "key", True, group).__enter__()
    assert len(list(foreign.iterdir())) == 2


def test_a_float_net_near_chance_is_refused_at_once(model: Tiny, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(InputError, match=r"near the 33.33 % of guessing .*--allow-poor-float"):
        edgevit.quantize(model, TRAIN, VAL, run_dir=run, epochs=0)
    # There is nothing to go on with: the next run, with other options, begins as the first.
    assert not run.exists()
    run.mkdir()
    (run / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not written by edgevit"):
        edgevit.quantize(model, TRAIN, VAL, run_dir=run, epochs=0, seed=1)
    assert [each.name for each in run.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("batch_size,workers", [(16, 0), (16, 1)])
def test_a_lost_worker_leaves_the_state_behind(
    model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int, workers: int
) -> None:
    asked = {"max_drop": 100, "batch_size": batch_size, "epochs": 3, "allow_poor_float": True}
    wanted = edgevit.quantize(model, TRAIN, VAL, **asked).program.to_bytes()
    asked |= {"run_dir": tmp_path / "run", "workers": workers}
    whole = finetune.training_batches

    def broken(*given):
        for step, batch in enumerate(whole(*given)):
            if step == 4:
                raise WorkerLost("a process that decodes images was ended")
            yield batch

    monkeypatch.setattr(finetune, "training_batches", broken)
    with pytest.raises(WorkerLost, match=r"ended; the same command goes on after step 4 of 8"):
        edgevit.quantize(model, TRAIN, VAL, **asked)
    seen = []
    monkeypatch.setattr(
        finetune, "training_batches", lambda *given: seen.append(given[2]) or whole(*given)
    )
    assert edgevit.quantize(model, TRAIN, VAL, **asked).program.to_bytes() == wanted
    assert seen == [range(4, 8)]


def test_a_subset_is_reported_on_and_said_to_be(
    model: Tiny, caplog: pytest.LogCaptureFixture
) -> None:
    asked = {"max_drop": 100, "epochs": 0, "allow_poor_float": True}
    with caplog.at_level(logging.INFO, "edgevit"):
        found = edgevit.quantize(model, TRAIN, VAL, eval_images=7, **asked)
    assert "reporting on 7 drawn from 24" in caplog.text
    data = found.program.info.provenance["report_data"]
    assert (data["images"], data["drawn_from"]) == (7, 24)
    assert found.program.reference is not None
    names = found.program.reference.paths
    places = [int(name.partition("/")[2].removesuffix(".png")) for name in names]
    assert len(set(places)) == 7 and places == sorted(places)
    assert {metric.count for metric in found.program.info.metrics} == {7}
    again = edgevit.quantize(model, TRAIN, VAL, eval_images=7, **asked)
    assert again.program.reference is not None and again.program.reference.paths == names
    other = edgevit.quantize(model, TRAIN, VAL, eval_images=7, seed=1, **asked)
    assert other.program.reference is not None and other.program.reference.paths != names
    every = edgevit.quantize(model, TRAIN, VAL, eval_images=24, **asked)
    assert "drawn_from" not in every.program.info.provenance["report_data"]


def test_each_process_needs_an_image_of_a_batch(model: Tiny) -> None:
    parts = Parts(None, None, [1, 2], [3], [4])  # type: ignore[arg-type]
    options = QuantizeOptions(batch_size=2)
    check_enough(parts, options, 2)
    with pytest.raises(InputError, match="--batch-size 2 is below the 3 processes"):
        check_enough(parts, options, 3)
