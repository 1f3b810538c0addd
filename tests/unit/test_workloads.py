"""Shape-only workloads against published parameter and multiplication counts."""

from pathlib import Path

import pytest

from sparsefab.errors import ConfigError, ModelError
from sparsefab.workload import Convolution, Embedding, Linear, Norm, Workload
from sparsefab.workloads import load_workload, workload_names


def all_parameters(workload: Workload, *, tied: bool, layer_norm_bias: bool) -> int:
    """Every parameter of a checkpoint: matrices, biases, embeddings, norms."""
    total = 0
    for layer in workload.layers:
        if isinstance(layer, Linear) and not (tied and layer.head):
            total += layer.out_features * layer.in_features + (layer.out_features if layer.bias else 0)
        elif isinstance(layer, Embedding):
            total += layer.rows * layer.width
        elif isinstance(layer, Norm):
            total += layer.width * (2 if layer_norm_bias else 1)
    return total


@pytest.mark.parametrize(("name", "count", "tied", "layer_norm"), [
    # parameter counts of the checkpoints' safetensors indices
    ("llama2-7b", 6_738_415_616, False, False),
    ("llama2-13b", 13_015_864_320, False, False),
    ("llama2-70b", 68_976_648_192, False, False),
    ("mistral-7b", 7_241_732_096, False, False),
    ("mixtral-8x7b", 46_702_792_704, False, False),
    ("smollm2-135m", 134_515_008, True, False),
    ("opt-6.7b", 6_658_473_984, True, True),
])  # fmt: skip
def test_decoders_have_the_published_size(name: str, count: int, tied: bool, layer_norm: bool) -> None:
    assert all_parameters(load_workload(name), tied=tied, layer_norm_bias=layer_norm) == count


def test_mixtral_s_active_parameters() -> None:
    # 12.9 G of 46.7 G parameters run for a token (Mixtral of Experts, arXiv 2401.04088)
    model = load_workload("mixtral-8x7b")
    active = sum(layer.macs(1) for layer in model.weight_layers()) + 32000 * 4096
    assert active == pytest.approx(12.9e9, rel=0.005)


def test_encoders_have_the_published_matrices() -> None:
    # a BERT block has 4 h^2 + 8 h^2 weights
    for name, blocks, hidden in (("bert-base", 12, 768), ("bert-large", 24, 1024)):
        blocks_only = [layer for layer in load_workload(name).weight_layers() if layer.name.startswith("layers.")]
        assert sum(layer.macs(1) for layer in blocks_only) == blocks * 12 * hidden**2
    # ViT-B/16: 86,567,656 parameters (torchvision); class token, positions, norms and biases apart
    vit = load_workload("vit-b16").parameters
    biases_and_norms = 12 * (4 * 768 + 3072 + 768 + 4 * 768) + 2 * 768 + 768 + 1000
    assert vit + biases_and_norms + 197 * 768 + 768 == 86_567_656


def test_resnet50_has_torchvision_size_and_work() -> None:
    workload = load_workload("resnet-50")
    # 25,557,032 parameters less 53,120 of batch norm and 1,000 biases; 4.089 G multiply-adds
    assert workload.parameters == 25_557_032 - 53_120 - 1_000
    assert sum(layer.macs(1) for layer in workload.weight_layers()) == pytest.approx(4.089e9, rel=1e-3)
    assert sum(isinstance(layer, Convolution) for layer in workload.layers) == 53


def test_all_names_load() -> None:
    for name in workload_names():
        assert load_workload(name).name == name


def test_bad_workloads(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="did you mean llama2-7b"):
        load_workload("llama-7b")
    path = tmp_path / "w.toml"
    path.write_text('name = "w"\nsource = "me"\n[transformer]\nfamily = "decoder"\nblocks = 1\nhidden = 10\n'
                    "intermediate = 8\nheads = 3\nkv_heads = 3\n")  # fmt: skip
    with pytest.raises(ConfigError, match=r"transformer: heads must divide hidden"):
        load_workload(path)
    path.write_text('name = "w"\nsource = "me"\n')
    with pytest.raises(ConfigError, match="exactly one of the sections"):
        load_workload(path)
