"""PyTorch checkpoints written by hand, in both containers, and files that ask for more than tensors."""

import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.models.families.efficientnet import build_efficientnet_lite0
from sparsefab.models.load import load_model
from sparsefab.models.torch_pickle import read_torch_tensors

Write = Callable[[Path, dict[str, Any]], None]
STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage"}


class _Pickled:
    """Stands for a tensor: pickles as PyTorch's do."""

    def __init__(self, key: str, array: NDArray[Any], offset: int = 0, strides: tuple[int, ...] | None = None) -> None:
        self.key, self.array, self.offset = key, array, offset
        self.strides = strides or tuple(step // array.itemsize for step in array.strides)


@pytest.fixture
def torch_names(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Modules with PyTorch's names, so that pickle writes references to them."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def rebuild(*arguments: Any) -> None: ...

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild  # type: ignore[attr-defined]
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    return torch


def pickler(torch: types.ModuleType, content: Any, found: dict[str, NDArray[Any]]) -> bytes:
    """Pickle an object whose tensors are `_Pickled`; collects the storages."""

    class Pickler(pickle.Pickler):
        def reducer_override(self, value: Any) -> Any:
            if not isinstance(value, _Pickled):
                return NotImplemented
            found[value.key] = value.array
            storage = _Storage(value)
            return (
                sys.modules["torch._utils"]._rebuild_tensor_v2,
                (storage, value.offset, value.array.shape, value.strides, False, OrderedDict()),
            )

        def persistent_id(self, value: Any) -> Any:
            if not isinstance(value, _Storage):
                return None
            kind = getattr(torch, STORAGES[value.tensor.array.dtype.name])
            return ("storage", kind, value.tensor.key, "cpu", value.tensor.array.size)

    stream = io.BytesIO()
    Pickler(stream, 2).dump(content)
    return stream.getvalue()


class _Storage:
    def __init__(self, tensor: _Pickled) -> None:
        self.tensor = tensor


@pytest.fixture
def write_zip(torch_names: types.ModuleType) -> Write:
    """The container since PyTorch 1.6."""

    def write(path: Path, content: dict[str, Any]) -> None:
        found: dict[str, NDArray[Any]] = {}
        data = pickler(torch_names, content, found)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("net/data.pkl", data)
            for key, array in found.items():
                archive.writestr(f"net/data/{key}", array.tobytes())

    return write


@pytest.fixture
def write_legacy(torch_names: types.ModuleType) -> Write:
    """The container before."""

    def write(path: Path, content: dict[str, Any]) -> None:
        found: dict[str, NDArray[Any]] = {}
        data = pickler(torch_names, content, found)
        parts = [
            pickle.dumps(0x1950A86A20F9469CFC6C, 2),
            pickle.dumps(1001, 2),
            pickle.dumps({"little_endian": True}, 2),
            data,
            pickle.dumps(list(found), 2),
        ]
        parts += [struct.pack("<q", array.size) + array.tobytes() for array in found.values()]
        path.write_bytes(b"".join(parts))

    return write


@pytest.fixture(params=["zip", "legacy"])
def write(request: pytest.FixtureRequest) -> Write:
    """Each container in turn."""
    function: Write = request.getfixturevalue(f"write_{request.param}")
    return function


def test_tensors(write: Write, tmp_path: Path) -> None:
    path, rng = tmp_path / "net.pth", np.random.default_rng(0)
    base = rng.standard_normal((4, 6)).astype(np.float32)
    content = OrderedDict(
        a=_Pickled("0", base),
        b=_Pickled("1", rng.standard_normal(5).astype(np.float16)),
        count=_Pickled("2", np.asarray(7, np.int64)),
    )
    write(path, content)
    tensors = read_torch_tensors(path)
    assert list(tensors) == ["a", "b", "count"]
    np.testing.assert_array_equal(tensors["a"], base)
    np.testing.assert_array_equal(tensors["b"], content["b"].array)
    assert tensors["count"].shape == ()
    assert tensors["count"] == 7


def test_views_and_nesting(write: Write, tmp_path: Path) -> None:
    base = np.arange(24, dtype=np.float32)
    turned = _Pickled("0", base.reshape(4, 6), strides=(1, 4))
    write(tmp_path / "net.pth", {"state_dict": {"turned": turned}, "epoch": 3})
    np.testing.assert_array_equal(read_torch_tensors(tmp_path / "net.pth")["turned"], base.reshape(6, 4).T)


def test_a_view_beyond_its_storage_is_refused(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "net.pth", {"x": _Pickled("0", np.arange(24, dtype=np.float32), offset=1)})
    with pytest.raises(ModelError, match="beyond its storage"):
        read_torch_tensors(tmp_path / "net.pth")


class _Evil:
    def __reduce__(self) -> Any:
        return print, ("this must never run",)


def test_code_is_refused_and_not_run(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "net.pth", {"x": _Evil()})
    with pytest.raises(ModelError, match=r"holds \w+\.print, not only tensors; save model\.state_dict"):
        read_torch_tensors(tmp_path / "net.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("length", [1, 30, 200, -20])
def test_damaged_files(write: Write, tmp_path: Path, length: int) -> None:
    path = tmp_path / "net.pth"
    write(path, {"x": _Pickled("0", np.arange(240, dtype=np.float32))})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelError, match=r"truncated|not a PyTorch|not an ONNX"):
        load_model(path)
    with pytest.raises(ModelError, match=r"truncated|not a PyTorch"):
        read_torch_tensors(path)


def test_weights_without_an_architecture(write: Write, tmp_path: Path) -> None:
    write(tmp_path / "net.pth", {"fc.weight": _Pickled("0", np.ones((2, 2), np.float32))})
    with pytest.raises(ModelError, match="weights without an architecture"):
        load_model(tmp_path / "net.pth")
    write(tmp_path / "net.pth", {"epoch": 3})
    with pytest.raises(ModelError, match="holds no named tensors"):
        load_model(tmp_path / "net.pth")


def test_another_efficientnet_is_refused() -> None:
    with pytest.raises(ModelError, match="not lite0 of 16 blocks"):
        build_efficientnet_lite0("b", {"_conv_stem.weight": np.ones((32, 3, 3, 3), np.float32)}, {})
