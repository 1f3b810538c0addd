"""One way to open a model: the importer is chosen by what the file holds."""

from collections.abc import Mapping
from pathlib import Path

from sparsefab.errors import ModelError
from sparsefab.models.families.efficientnet import build_efficientnet_lite0, is_efficientnet_lite
from sparsefab.models.model import Model

__all__ = ["find_model_file", "load_model"]

_PATTERNS = ("*.safetensors.index.json", "*.safetensors", "*.onnx", "*.gguf", "*.pth", "*.pt")


def load_model(path: Path, input_shapes: Mapping[str, tuple[int, ...]] | None = None) -> Model:
    """Import a model from a file, or from the folder that holds it and what belongs to it.

    Parameters
    ----------
    path : Path         An ONNX, GGUF, safetensors or PyTorch file, or a folder with one of these.
    input_shapes :      See `import_onnx`; other formats have fixed inputs.

    Raises
    ------
    ModelError          If there is no model, more than one, or it cannot be imported.
    """
    file = find_model_file(path)
    with file.open("rb") as stream:
        start = stream.read(16)
    if start[:4] == b"GGUF":
        from sparsefab.models.gguf_import import import_gguf

        return import_gguf(file)
    if file.name.endswith(".safetensors.index.json") or start[8:9] == b"{":
        from sparsefab.models.safetensors_import import import_safetensors

        return import_safetensors(file)
    if start[:4] == b"PK\x03\x04" or (start[:1] == b"\x80" and file.suffix in (".pth", ".pt")):
        return _import_torch(file)
    from sparsefab.models.onnx_import import import_onnx

    return import_onnx(file, input_shapes)


def find_model_file(path: Path) -> Path:
    """Return a model file, or the one model file of a folder; raises ModelError if there is none."""
    if not path.is_dir():
        if not path.is_file():
            raise ModelError(f"{path}: no such file")
        return path
    folder = path
    for pattern in _PATTERNS:
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            raise ModelError(f"{folder}: holds {len(found)} models ({found[0].name}, {found[1].name}, ...); name one")
        if found:
            return found[0]
    raise ModelError(f"{folder}: holds no model; looked for {', '.join(_PATTERNS)}")


def _import_torch(file: Path) -> Model:
    from sparsefab.models.torch_pickle import read_torch_tensors

    tensors = read_torch_tensors(file)
    if not is_efficientnet_lite(tensors):
        raise ModelError(
            f"{file}: weights without an architecture; only EfficientNet-lite0 is known by its names, "
            "export other models to ONNX"
        )
    return build_efficientnet_lite0(file.stem, tensors, {"format": "torch", "source": file.name})
