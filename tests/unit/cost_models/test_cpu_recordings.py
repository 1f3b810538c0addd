"""Shipped recordings of CPU kernels: as they were measured, judged without a measurement of one's own."""

from dataclasses import replace

import pytest

from sparsefab import config
from sparsefab.cost_models.cpu import price_cpu
from sparsefab.cost_models.cpu_fit import LEAST_MATRICES, matrices_of, samples_table
from sparsefab.cost_models.cpu_recordings import Recording, recording_of, recordings
from sparsefab.cost_models.estimate import LayerPlan, Options, Provenance, estimate
from sparsefab.cost_models.validate import validate
from sparsefab.formats.catalog import get_format
from sparsefab.formats.sparsity import Block, Dense
from sparsefab.formats.tensors import TensorSpec
from sparsefab.targets import load_device, measured_device
from sparsefab.workload import Phase
from sparsefab.workloads import load_workload


def test_a_recording_is_the_measurement_it_was_made_of() -> None:
    (first, *_) = recordings()
    again = recording_of(first.measured, first.name, first.features)
    assert again.measured == first.measured
    assert config.loads(config.dumps(again), Recording, source="test") == again


def test_recordings_hold_enough_matrices_of_every_kernel() -> None:
    for recording in recordings():
        assert recording.source
        assert recording.licence
        for kernel in ("dense_int8", "block_4x1", "dequantize_int8"):
            table = samples_table(tuple(s for s in recording.measured.kernels if s.kernel == kernel))
            assert matrices_of(table).max() >= 4 * LEAST_MATRICES


def test_the_page_has_cpu_figures_on_a_machine_that_never_measured() -> None:
    rows = {(row.name, row.metric): row for row in validate("cpu", host=None)}
    shipped = [row for (name, _), row in rows.items() if not name.startswith("this machine")]
    assert {row.value is None for row in shipped} == {False}
    assert rows["xeon_vnni, all kernels", "mean error"].goal == 0.10
    assert rows["this machine", "mean error"].value is None


def test_a_recorded_machine_is_a_calibrated_target() -> None:
    measured, model = recordings()[0].measured, load_workload("smollm2-135m")
    plans = {
        layer.name: LayerPlan(spec=TensorSpec.of(*layer.weight_shape, get_format("int8")), activation="int8")
        for layer in model.weight_layers()
    }
    cost = estimate(model, plans, measured_device(measured), Phase(kind="prefill"), Options(measured=measured))
    up = next(layer for layer in cost.layers if layer.name == "layers.0.mlp.up_proj")
    assert up.provenance is Provenance.CALIBRATED


@pytest.mark.parametrize("name", ["xeon_8488c", "xeon_8592plus"])
@pytest.mark.parametrize(("density", "factor"), [(1.0, 0.286), (0.5, 0.368), (0.1, 1.0)])
def test_int8_products_are_priced_on_the_instructions_that_the_kernels_take(
    name: str, density: float, factor: float
) -> None:
    """AMX tiles do eight times the products of VNNI a cycle, zeros too, and the kernels reach 0.38 of that."""
    device, model, phase = load_device(name), load_workload("bert-base"), Phase(kind="prefill", context=512)
    assert device.cpu is not None
    sparse = Dense() if density == 1 else Block(4, 1, density=density)
    plans = {
        layer.name: LayerPlan(
            spec=TensorSpec.of(
                *layer.weight_shape, get_format("int8"), pattern=Dense() if layer.weight_shape[0] % 4 else sparse
            ),
            activation="int8",
        )
        for layer in model.weight_layers()
    }
    rate = replace(device.cpu.int8_op_per_cycle_per_core, value=256.0)
    vnni = replace(device.cpu, isa="avx512_vnni", int8_op_per_cycle_per_core=rate)
    priced = price_cpu(model, plans, device, phase, Options())
    plain = price_cpu(model, plans, replace(device, cpu=vnni), phase, Options())
    tiles = {layer.name: layer for layer in priced.layers}
    for layer in plain.layers:
        assert tiles[layer.name].latency_s.value <= layer.latency_s.value
    up = next(layer for layer in plain.layers if layer.kind == "linear")
    assert tiles[up.name].terms_s["compute"] == pytest.approx(factor * up.terms_s["compute"], rel=0.01)
    assert any("AMX" in note for note in priced.notes)
    assert not any("AMX" in note for note in plain.notes)


def test_a_machine_whose_kernels_were_not_timed_has_tiles_by_its_level() -> None:
    measured, model, phase = recordings()[0].measured, load_workload("bert-base"), Phase(kind="prefill", context=512)
    plans = {
        layer.name: LayerPlan(spec=TensorSpec.of(*layer.weight_shape, get_format("int8")), activation="int8")
        for layer in model.weight_layers()
    }
    terms = {}
    for isa in ("avx512-vnni", "avx512-amx"):
        bare = replace(measured, isa=isa, kernels=())
        priced = price_cpu(model, plans, measured_device(bare), phase, Options(measured=bare))
        terms[isa] = next(layer for layer in priced.layers if layer.kind == "linear").terms_s["compute"]
    assert terms["avx512-amx"] == pytest.approx(0.286 * terms["avx512-vnni"], rel=0.01)
