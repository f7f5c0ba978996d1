"""Savings of memory and time: the same numbers, really less, and the network as it was afterwards."""

from pathlib import Path

import pytest
import torch

from heimdall_assets.errors import MissingDependency
from heimdall_assets.evaluation.figures.range_curve import plot_range
from heimdall_assets.learning.fitting.gpu_watch import STEPS_BETWEEN, GpuWatch, build_watch
from heimdall_assets.learning.fitting.savings import check_compiler, lay_channels_last, recompute_activations
from heimdall_assets.learning.session_model.task import NetworkTask
from heimdall_assets.learning.task import find_task
from heimdall_assets.specs import MachineSpec, ModelSpec, TrainingSpec
from heimdall_assets.stores.gpu_meters import NvmlMeters, open_meters
from heimdall_assets_tests.learning.learning_cases import QUICK, SINGLE, fit_quick, make_sessions
from heimdall_assets_tests.learning.toy_task import TOY, fit_toy, is_same


def change(**changes) -> TrainingSpec:
    return TrainingSpec.model_validate({**TOY.model_dump(), **changes})


def measure_backward(network, features, blocks) -> tuple[int, list[torch.Tensor]]:
    """Return the bytes of activations that are kept for the way back, and the gradients."""
    kept: dict[int, int] = {}

    def pack(value):
        kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        return value

    network.zero_grad()
    torch.manual_seed(3)
    with recompute_activations(blocks):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            loss = network(features).square().sum()
        loss.backward()
    own = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
    size = sum(nbytes for place, nbytes in kept.items() if place not in own)
    return size, [weight.grad.clone() for weight in network.parameters()]


def test_activations_computed_again_give_the_same_gradients_for_a_fraction_of_the_memory():
    task = find_task("single_receiver")
    torch.manual_seed(1)
    network = task.build_network(SINGLE.model_copy(update={"dropout": 0.3}), {})
    features = torch.randn(4, 3, 64, 32)
    whole, gradients = measure_backward(network, features, [])
    less, same = measure_backward(network, features, task.list_blocks(network))
    assert less < 0.5 * whole, (less, whole)
    for one, other in zip(gradients, same, strict=True):
        assert torch.equal(one, other)
    assert all("forward" not in vars(block) for block in task.list_blocks(network))


def test_blocks_of_the_session_model_are_its_attention_and_its_backbone():
    task = NetworkTask()
    model = ModelSpec(width=8, num_heads=1, num_layers=2, use_correlations=False)
    statistics = task.fit_statistics(model, make_sessions(8, 1))
    network = task.build_network(model, statistics)
    blocks = task.list_blocks(network)
    assert blocks[:3] == [network.first, *network.layers]
    assert len(blocks) > 10


def test_a_fit_that_recomputes_gives_the_same_bits(tmp_path: Path):
    assert is_same(fit_toy(tmp_path / "1"), fit_toy(tmp_path / "2", change(activation_checkpointing=True)))


def test_channels_last_is_how_convolutions_see_spectrograms_and_the_model_is_stored_as_ever(tmp_path: Path):
    task = find_task("single_receiver")
    network = task.build_network(SINGLE, {})
    seen = []
    stem = network.backbone.stem[0]
    handle = stem.register_forward_pre_hook(
        lambda _, given: seen.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    features = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        plain = network.eval()(features)
        with lay_channels_last(network):
            assert stem.weight.is_contiguous(memory_format=torch.channels_last)
            laid = network(features)
    handle.remove()
    assert seen == [False, True]
    torch.testing.assert_close(plain, laid, rtol=1e-4, atol=1e-5)
    assert all(weight.is_contiguous() for weight in network.parameters())
    fitted = fit_quick(tmp_path, training=QUICK.model_copy(update={"channels_last": True, "max_epochs": 1}))
    assert all(value.flags["C_CONTIGUOUS"] for value in fitted.weights.values())


def test_without_a_compiler_compile_is_refused_before_training():
    from torch._inductor import config

    said = r"TrainingSpec.compile: torch.compile does not work here .*no-such-compiler.*compile=false"
    with config.patch({"cpp.cxx": (None, "no-such-compiler")}), pytest.raises(MissingDependency, match=said):
        check_compiler("cpu")


@pytest.mark.long
def test_a_compiled_fit_gives_the_same_losses(tmp_path: Path):
    check_compiler("cpu")
    one, _ = fit_toy(tmp_path / "1", dropout=0.0)
    other, weights = fit_toy(tmp_path / "2", change(compile=True), dropout=0.0)
    for record, same in zip(one.history, other.history, strict=True):
        assert record["val_loss"] == pytest.approx(same["val_loss"], rel=1e-4)
    assert not any("_orig_mod" in name for name in weights)


def test_the_finder_is_repeatable_leaves_the_fit_alone_and_keeps_its_curve(tmp_path: Path):
    spec = change(find_learning_rate=True)
    (one, weights), again = fit_toy(tmp_path / "1", spec), fit_toy(tmp_path / "2", spec)
    assert is_same((one, weights), again)
    search = one.describe()["learning_rate_search"]
    assert len(search["learning_rates"]) == len(search["losses"]) >= 20
    assert 1e-5 < search["chosen"] < 1.0
    told = fit_toy(tmp_path / "3", change(learning_rate=search["chosen"]))
    assert told[0].history == one.history
    assert all(torch.equal(value, told[1][name]) for name, value in weights.items())
    picture = plot_range(search)
    assert picture.startswith(b"<?xml")
    assert f"chosen: {search['chosen']:.3g}".encode() in picture or b"<path" in picture
    resumed = fit_toy(tmp_path / "1", spec, resume_from="last.ckpt")
    assert is_same((one, weights), resumed)


class Meters:
    """A GPU that says what it is told to."""

    def __init__(self, *power_w: float | None, temperature_c: float | None = 50.0) -> None:
        self.power_w, self.temperature_c = list(power_w), temperature_c

    def read_power_w(self, uuid: str | None) -> float | None:
        return self.power_w.pop(0)

    def read_temperature_c(self, uuid: str | None) -> float | None:
        return self.temperature_c


def test_a_gpu_above_its_limit_is_told_each_time_it_goes_there():
    said: list[str] = []
    machine = MachineSpec(max_power_w=300.0, max_temperature_c=80.0)
    watch = GpuWatch(machine, Meters(250.0, 310.0, 320.0, 200.0, 301.0), said.append)
    for _ in range(5):
        watch.look(None)
    line = "MachineSpec.max_power_w 300: the GPU draws {} W, which is above it"
    assert said == [line.format(310), line.format(301)]
    GpuWatch(machine, Meters(None, temperature_c=91.0), said.append).look(None)
    assert said[2:] == [
        "MachineSpec.max_power_w 300: this GPU does not tell, it cannot be watched",
        "MachineSpec.max_temperature_c 80: the GPU is at 91 degrees C, which is above it",
    ]


def test_a_limit_that_cannot_be_watched_is_said_once_before_training(tmp_path: Path):
    from heimdall_assets.learning.fitting.hooks import Hooks

    said: list[str] = []
    machine = MachineSpec(accelerator="cpu", max_power_w=15.0, max_temperature_c=70.0)
    fit_toy(tmp_path, machine=machine, hooks=Hooks(said.append, meters=Meters()))
    assert said == ["MachineSpec.max_power_w 15, max_temperature_c 70: cannot be watched, it trains on processors"]
    assert build_watch(MachineSpec(max_power_w=1.0), True, None, said.append) == []
    assert "no NVIDIA driver answers" in said[1]
    assert build_watch(MachineSpec(), True, None, said.append) == []
    assert isinstance(build_watch(MachineSpec(max_power_w=1.0), True, Meters(), said.append)[0], GpuWatch)
    assert STEPS_BETWEEN > 1


def test_meters_speak_watt_and_degrees_and_find_a_gpu_by_its_uuid():
    class Nvml:
        """What NVML offers, of one GPU whose power is unknown."""

        NVML_TEMPERATURE_GPU = 0

        class NVMLError(Exception):
            pass

        @staticmethod
        def nvmlDeviceGetHandleByUUID(uuid):
            if uuid != "GPU-1":
                raise Nvml.NVMLError
            return uuid

        @staticmethod
        def nvmlDeviceGetPowerUsage(_):
            return 123_400

        @staticmethod
        def nvmlDeviceGetTemperature(_, sensor):
            return 61

    meters = NvmlMeters(Nvml)
    assert meters.read_power_w("1") == 123.4
    assert meters.read_temperature_c("GPU-1") == 61.0
    assert meters.read_power_w("2") is None


def test_a_machine_without_a_driver_has_no_meters():
    if torch.cuda.is_available():
        pytest.skip("it has one")
    assert open_meters() is None
