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
        """Hash of all that decides what the model computes: its file, and what the importer reads beside it."""
        digest = hashlib.sha256()
        for path in [self.file, *_beside(self.file)]:
            digest.update(f"{path.name}:{path.stat().st_size}\n".encode())
            with path.open("rb") as stream:
                while block := stream.read(1 << 22):
                    digest.update(block)
        return digest.hexdigest()


def _beside(file: Path) -> list[Path]:
    """Files that belong to a model file: shards, configuration, tokenizer, an ONNX file's external data."""
    if file.suffix == ".onnx":
        from sparsefab.models.onnx_import import external_files

        return sorted(external_files(file))
    if file.suffix in (".gguf", ".pth", ".pt"):
        return []
    names = ("*.safetensors", "config.json", "tokenizer.json", "vocab.txt")
    return sorted({path for name in names for path in file.parent.glob(name)} - {file})


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
