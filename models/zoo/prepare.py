"""Turn the files of a package into the evaluation data a model's metric needs, on the user's machine."""

import hashlib
from pathlib import Path

import numpy as np

from sparsefab.errors import MissingToolError, ModelError
from sparsefab.models.zoo.catalog import ZooEntry
from sparsefab.models.zoo.texts import join_articles, read_similarity_set, wikipedia_articles

__all__ = ["prepare"]

CALIBRATION_CHARACTERS = 200_000
SHORT_SIDE_PIXELS, CROP_PIXELS = 256, 224


def prepare(entry: ZooEntry, folder: Path) -> dict[str, str | int]:
    """Prepare a freshly unpacked model's evaluation data in place.

    Returns
    -------
    dict        Facts for the manifest: source, sha256 of the data, counts.

    Raises
    ------
    ModelError          If the data is damaged.
    MissingToolError    If pictures must be decoded and Pillow is not installed.
    """
    if entry.evaluation == "wikipedia":
        return _prepare_wikipedia(folder)
    if entry.evaluation == "lee-50":
        return _prepare_lee(folder)
    if entry.evaluation == "imagenet-20":
        return _prepare_pictures(folder)
    raise ValueError(f"evaluation data {entry.evaluation!r} comes with the package and is not prepared")


def _prepare_wikipedia(folder: Path) -> dict[str, str | int]:
    """Write evaluation.txt (all articles but the last few) and calibration.txt (those)."""
    dump = folder / "enwiki.xml.bz2"
    articles = wikipedia_articles(dump.read_bytes())
    first_calibration = len(articles)
    while first_calibration > 1 and len(join_articles(articles[first_calibration:])) < CALIBRATION_CHARACTERS:
        first_calibration -= 1
    whole = join_articles(articles)
    evaluation, calibration = join_articles(articles[:first_calibration]), join_articles(articles[first_calibration:])
    (folder / "evaluation.txt").write_text(evaluation, encoding="utf-8", newline="\n")
    (folder / "calibration.txt").write_text(calibration, encoding="utf-8", newline="\n")
    dump.unlink()
    return {
        "source": "English Wikipedia, test data of gensim 4.4.0, CC BY-SA",
        "articles": len(articles),
        "characters": len(whole),
        "sha256": _text_sha256(whole),
        "evaluation_articles": first_calibration,
        "evaluation_sha256": _text_sha256(evaluation),
        "calibration_sha256": _text_sha256(calibration),
    }


def _prepare_lee(folder: Path) -> dict[str, str | int]:
    """Check that the documents and the table of similarities fit."""
    pairs = read_similarity_set(folder / "documents.txt", folder / "similarities.txt")
    return {
        "source": "Lee, Pincombe and Welsh 2005, test data of gensim 4.4.0",
        "documents": len(pairs.documents),
        "sha256": _text_sha256("\n".join(pairs.documents)),
    }


def _prepare_pictures(folder: Path) -> dict[str, str | int]:
    """Decode the pictures, scale the short side to 256, crop the middle 224 x 224, and store them with their labels."""
    try:
        from PIL import Image
    except ImportError as problem:
        raise MissingToolError("Pillow is missing, which decodes the pictures; run: pip install pillow") from problem
    paths = sorted(folder.glob("imagenet_*"))
    images = np.empty((len(paths), CROP_PIXELS, CROP_PIXELS, 3), np.uint8)
    for row, path in enumerate(paths):
        try:
            picture = Image.open(path).convert("RGB")
        except OSError as problem:
            raise ModelError(f"{path.name}: not a picture; fetch again") from problem
        width, height = picture.size
        scale = SHORT_SIDE_PIXELS / min(width, height)
        size = (round(width * scale), round(height * scale))
        left, top = (size[0] - CROP_PIXELS) // 2, (size[1] - CROP_PIXELS) // 2
        box = (left, top, left + CROP_PIXELS, top + CROP_PIXELS)
        images[row] = np.asarray(picture.resize(size, Image.Resampling.BICUBIC).crop(box))
        path.unlink()
    labels = np.array([int(path.stem.rsplit("_", 1)[1]) for path in paths], np.int64)
    np.savez_compressed(folder / "images.npz", images=images, labels=labels)
    return {
        "source": "20 sample pictures of foolbox 3.3.4, label in the file name",
        "images": len(paths),
        "sha256": hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest(),
    }


def _text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
