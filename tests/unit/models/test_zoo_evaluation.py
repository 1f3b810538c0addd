"""Evaluation data: vendored images or the installed 10,000, and errors that name what is wrong."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.models import zoo


def write_idx(folder: Path, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
    header = np.array([0x803, *images.shape], ">u4").tobytes()
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(header + images.tobytes()))
    header = np.array([0x801, len(labels)], ">u4").tobytes()
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(header + labels.tobytes()))


def test_the_installed_set_is_taken_when_it_is_there(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (7, 28, 28), np.uint8)
    labels = generator.integers(0, 10, 7, np.uint8)
    write_idx(tmp_path, images, labels)
    data = zoo.evaluation_images("fashion-resnet8", tmp_path, fashion_folder=tmp_path)
    np.testing.assert_array_equal(data.images, images)
    np.testing.assert_array_equal(data.labels, labels)
    assert "7 official" in data.source
    vendored = zoo.evaluation_images("fashion-resnet8", tmp_path, full=False, fashion_folder=tmp_path)
    assert len(vendored.labels) == 1_000
    assert vendored.sha256 != data.sha256


def test_without_the_package_the_vendored_images_are_taken(tmp_path: Path) -> None:
    data = zoo.evaluation_images("fashion-resnet8", tmp_path, fashion_folder=tmp_path / "absent")
    assert data.images.shape == (1_000, 28, 28)
    assert data.images.dtype == np.uint8
    assert set(data.labels.tolist()) == set(range(10))


def test_inputs_are_normalized_as_in_training(tmp_path: Path) -> None:
    data = zoo.evaluation_images("fashion-resnet8", tmp_path, full=False)
    inputs = data.inputs()
    assert inputs.shape == (1_000, 1, 28, 28)
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs[:, 0], (data.images / 255.0 - 0.286) / 0.353, rtol=0, atol=1e-6)


def test_calibration_images_are_not_test_images(tmp_path: Path) -> None:
    calibration = zoo.calibration_images("fashion-resnet8", tmp_path)
    assert calibration.images.shape == (256, 28, 28)
    test = {image.tobytes() for image in zoo.evaluation_images("fashion-resnet8", tmp_path, full=False).images}
    assert not any(image.tobytes() in test for image in calibration.images)


@pytest.mark.parametrize("damage", ["cut", "counts"])
def test_a_damaged_installed_set_is_named(tmp_path: Path, damage: str) -> None:
    write_idx(tmp_path, np.zeros((3, 28, 28), np.uint8), np.zeros(2, np.uint8))
    if damage == "cut":
        path = tmp_path / "t10k-images-idx3-ubyte.gz"
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ModelError, match="reinstall dataset-fashion-mnist"):
        zoo.evaluation_images("fashion-resnet8", tmp_path, fashion_folder=tmp_path)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda cache: zoo.evaluation_text("fashion-resnet8", cache), "not judged on a text"),
        (lambda cache: zoo.calibration_text("fashion-resnet8", cache), "not calibrated on a text"),
        (lambda cache: zoo.evaluation_images("char-llama", cache), "not on images"),
        (lambda cache: zoo.similarity_set("char-llama", cache), "not on similarities"),
        (lambda cache: zoo.evaluation_text("smollm2-135m", cache), "sparsefab fetch smollm2-135m"),
        (lambda cache: zoo.evaluation_images("efficientnet-lite0", cache), "sparsefab fetch efficientnet-lite0"),
    ],
)
def test_asking_a_model_for_the_wrong_data_is_an_error(tmp_path: Path, ask: object, message: str) -> None:
    assert callable(ask)
    with pytest.raises(ModelError, match=message):
        ask(tmp_path)
