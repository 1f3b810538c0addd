"""The data behind each model's metric, from the package, the system or the cache.

Every function takes the cache folder; embedded models do not use it.  Evaluation and calibration data never overlap,
except for the 20 pictures of the ImageNet smoke test, which have no second set.
"""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.models.zoo.catalog import get
from sparsefab.models.zoo.fetch import locate
from sparsefab.models.zoo.texts import SimilaritySet, read_similarity_set

__all__ = [
    "FASHION_FOLDER",
    "LabelledImages",
    "TextData",
    "calibration_images",
    "calibration_text",
    "evaluation_images",
    "evaluation_text",
    "similarity_set",
]

FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's dataset-fashion-mnist puts its files."""

_TEXT_FILES = {"char-text": ("heldout.txt", "ascii"), "wikipedia": ("evaluation.txt", "utf-8")}
_CALIBRATION_TEXTS = {
    "char-text": ("calibration.txt", "ascii"),
    "wikipedia": ("calibration.txt", "utf-8"),
    "lee-50": ("calibration.txt", "latin-1"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TextData:
    """A text and the sha256 of its file, which is stored beside every number measured on it."""

    text: str
    sha256: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImages:
    """Images as stored, and how a model wants them.

    images : uint8[count, height, width] or uint8[count, height, width, 3].
    labels : int64[count].
    unit, mean, std : a model's input is (image / unit - mean) / std.
    sha256 : of the images' and then the labels' bytes.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    unit: float
    mean: float
    std: float
    source: str

    @property
    def sha256(self) -> str:
        """Name of the data, stored beside every number measured on it."""
        return hashlib.sha256(self.images.tobytes() + self.labels.tobytes()).hexdigest()

    def inputs(self) -> NDArray[np.float32]:
        """Return float32[count, channel, height, width], normalized as the model was trained."""
        values = (self.images.astype(np.float32) / np.float32(self.unit) - np.float32(self.mean)) / np.float32(self.std)
        return values[:, None] if values.ndim == 3 else np.ascontiguousarray(values.transpose(0, 3, 1, 2))


def evaluation_text(name: str, cache_dir: Path) -> TextData:
    """Return the text a language model is judged on.

    Raises
    ------
    ModelError      If the model is unknown, not fetched, or not judged on a text.
    """
    return _text(name, cache_dir, _TEXT_FILES, "judged")


def calibration_text(name: str, cache_dir: Path) -> TextData:
    """Return a text disjoint from the evaluation data, for calibration (minilm-l6: one document a line).

    Raises
    ------
    ModelError      If the model is unknown, not fetched, or not calibrated on a text.
    """
    return _text(name, cache_dir, _CALIBRATION_TEXTS, "calibrated")


def evaluation_images(
    name: str, cache_dir: Path, *, full: bool = True, fashion_folder: Path = FASHION_FOLDER
) -> LabelledImages:
    """Return the labelled images an image model is judged on.

    Parameters
    ----------
    full : bool             Take all 10,000 test images of Fashion-MNIST if the Debian package is installed; else, or
        without it, the 1,000 in the package.  `source` says which.
    fashion_folder : Path   Where that package's files are.

    Raises
    ------
    ModelError      If the model is unknown, not fetched, or not judged on images, or the installed files are damaged.
    """
    entry = get(name)
    folder = locate(name, cache_dir)
    if entry.evaluation == "imagenet-20":
        with _arrays(folder / "images.npz") as arrays:
            return _imagenet(arrays["images"], arrays["labels"])
    if entry.evaluation != "fashion-images":
        raise ModelError(f"model {name!r} is judged by {entry.metric}, not on images")
    if full and (fashion_folder / "t10k-images-idx3-ubyte.gz").is_file():
        images, labels = _read_idx(fashion_folder)
        return _fashion(images, labels, f"Fashion-MNIST, {len(labels)} official test images")
    with _arrays(folder / "test_images.npz") as arrays:
        count = len(arrays["labels"])
        return _fashion(arrays["images"], arrays["labels"], f"Fashion-MNIST, first {count} official test images")


def calibration_images(name: str, cache_dir: Path) -> LabelledImages:
    """Return images for calibration: 256 training images of Fashion-MNIST, or the 20 pictures of the smoke test.

    Raises
    ------
    ModelError      If the model is unknown, not fetched, or takes no images.
    """
    entry = get(name)
    if entry.evaluation != "fashion-images":
        return evaluation_images(name, cache_dir)
    with _arrays(locate(name, cache_dir) / "test_images.npz") as arrays:
        images, labels = arrays["calibration_images"], arrays["calibration_labels"]
        return _fashion(images, labels, f"Fashion-MNIST, first {len(labels)} training images")


def similarity_set(name: str, cache_dir: Path) -> SimilaritySet:
    """Return the documents and human similarities an embedding model is judged on.

    Raises
    ------
    ModelError      If the model is unknown, not fetched, or not judged on similarities.
    """
    entry = get(name)
    if entry.evaluation != "lee-50":
        raise ModelError(f"model {name!r} is judged by {entry.metric}, not on similarities")
    folder = locate(name, cache_dir)
    return read_similarity_set(folder / "documents.txt", folder / "similarities.txt")


def _text(name: str, cache_dir: Path, files: dict[str, tuple[str, str]], verb: str) -> TextData:
    entry = get(name)
    if entry.evaluation not in files:
        raise ModelError(f"model {name!r} is not {verb} on a text; its metric is {entry.metric}")
    file, encoding = files[entry.evaluation]
    path = locate(name, cache_dir) / file
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise ModelError(f"{path}: cannot be read ({problem.strerror}); fetch the model again") from problem
    return TextData(text=data.decode(encoding), sha256=hashlib.sha256(data).hexdigest(), source=f"{entry.name} {file}")


def _fashion(images: NDArray[np.uint8], labels: NDArray[np.uint8], source: str) -> LabelledImages:
    return LabelledImages(
        images=images, labels=labels.astype(np.int64), unit=255.0, mean=0.286, std=0.353, source=source
    )


def _imagenet(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> LabelledImages:
    source = f"{len(labels)} ImageNet sample pictures of foolbox 3.3.4 (smoke test)"
    return LabelledImages(images=images, labels=labels, unit=1.0, mean=127.0, std=128.0, source=source)


def _arrays(path: Path) -> "np.lib.npyio.NpzFile":
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError) as problem:
        raise ModelError(f"{path}: cannot be read ({problem}); fetch the model again") from problem


def _read_idx(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Read the official test split from its IDX files."""
    try:
        images = gzip.decompress((folder / "t10k-images-idx3-ubyte.gz").read_bytes())
        labels = gzip.decompress((folder / "t10k-labels-idx1-ubyte.gz").read_bytes())
        pixels = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
        targets = np.frombuffer(labels, np.uint8, offset=8)
    except (OSError, EOFError, ValueError) as problem:
        message = f"{folder}: Fashion-MNIST cannot be read ({problem}); reinstall dataset-fashion-mnist"
        raise ModelError(message) from problem
    if len(pixels) != len(targets):
        raise ModelError(f"{folder}: {len(pixels)} images for {len(targets)} labels; reinstall dataset-fashion-mnist")
    return pixels, targets
