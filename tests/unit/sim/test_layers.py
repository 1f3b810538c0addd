"""A model's layers on their way to the chain: what is packed is what is evaluated."""

from pathlib import Path

import numpy as np
import pytest

from sparsefab.arch import ChainArch
from sparsefab.errors import TargetError
from sparsefab.formats import NM, Chain, Dense, get_format, unpack
from sparsefab.models.compress import Recipe, Rule
from sparsefab.models.evaluate import Slice, calibrate, task_for
from sparsefab.session import Session
from sparsefab.sim.layers import chain_layers, chain_layout, runs_on_chain


def prepared(tmp_path: Path, rule: Rule, model: str = "fashion-resnet8"):
    session = Session(tmp_path)
    source = session.source(model)
    loaded = source.load()
    task = task_for(source, loaded, tmp_path, Slice())
    return calibrate(session.compress(loaded, Recipe(name="r", rules=(rule,))), task.calibration_feeds()), task


def test_packed_weights_and_codes_are_the_evaluations(tmp_path: Path) -> None:
    compressed, task = prepared(tmp_path, Rule(weights="int8sym", pattern="8:16"))
    arch = ChainArch(dsps=16)
    layers = chain_layers(compressed, task.check_feed(), arch, count=3)
    assert len(layers) == 3
    for name, (packed, codes) in layers.items():
        layer = compressed.layers[name]
        np.testing.assert_array_equal(unpack(packed).integers(), layer.tensor.integers())
        assert isinstance(packed.layout, Chain)
        assert codes.shape[1] == layer.tensor.shape[1]
        assert codes.min() >= -128
        assert codes.max() <= 127


def test_what_the_chain_cannot_take_is_refused(tmp_path: Path) -> None:
    compressed, task = prepared(tmp_path, Rule(weights="e4m3fn", activations="e4m3fn"))
    assert not any(runs_on_chain(layer) for layer in compressed.layers.values())
    with pytest.raises(TargetError, match="no layer"):
        chain_layers(compressed, task.check_feed(), ChainArch(dsps=16), count=2)


def test_slots_follow_the_pattern() -> None:
    arch = ChainArch(dsps=32)
    assert chain_layout(NM(2, 4), arch).slots == 8
    assert chain_layout(NM(4, 16), arch).slots == 4
    assert chain_layout(Dense(), arch).slots == 16
    assert get_format("e2m1").fixed_point().fits(8)
