"""What a user calls a model: a catalogue name or a path, and the hash that identifies its weights."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from sparsefab.errors import ModelError
from sparsefab.models.load import find_model_file, load_model
from sparsefab.models.model import Model
from sparsefab.models.zoo import entries, locate

__all__ = ["Source", "resolve"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model that can be loaded.

    path : Path             Its file, or the folder that holds it.
    known : bool            It is in the catalogue, so its evaluation data is known.
    """

    name: str
    path: Path
    known: bool

    def load(self) -> Model:
        """Import the model; raises ModelError."""
        return load_model(self.path)

    @property
    def file(self) -> Path:
        """The model file itself."""
        return find_model_file(self.path)

    @property
    def sha256(self) -> str:
        """Hash of the model file's bytes, external data included."""
        file = self.file
        beside = [file] if self.path.is_file() else [p for p in self.path.iterdir() if p.suffix in _WEIGHT_SUFFIXES]
        digest = hashlib.sha256()
        for path in sorted({file, *beside}):
            with path.open("rb") as stream:
                for block in iter(lambda: stream.read(1 << 22), b""):
                    digest.update(block)
        return digest.hexdigest()


_WEIGHT_SUFFIXES = {".onnx", ".gguf", ".safetensors", ".pth", ".pt", ".bin", ".data"}


def resolve(text: str, cache_dir: Path) -> Source:
    """Find a model by catalogue name or path.

    Raises
    ------
    ModelError              If it is neither, or in the catalogue but not fetched.
    """
    names = [entry.name for entry in entries()]
    if text in names:
        return Source(name=text, path=locate(text, cache_dir), known=True)
    path = Path(text)
    if path.exists():
        return Source(name=path.stem if path.is_file() else path.resolve().name, path=path, known=False)
    raise ModelError(f"{text}: no such file, and no model of the catalogue; that has {', '.join(names)}")
