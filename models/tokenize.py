"""Text to token ids and back, with the vocabulary that lies in or beside a model file.

tokenizer = load_tokenizer(Path("model.gguf"))
ids = tokenizer.encode("The capital of France is")
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from sparsefab.errors import ModelError
from sparsefab.models.gguf_file import GgufFile
from sparsefab.models.safetensors_import import read_json

__all__ = ["CharacterTokenizer", "SubwordTokenizer", "TextTokenizer", "load_tokenizer"]

_CONTROL, _USER_DEFINED = 3, 4
"""GGUF's token types (gguf.TokenType) that are never split."""


class TextTokenizer(Protocol):
    """What a model's text metric needs."""

    def encode(self, text: str) -> NDArray[np.int64]:
        """Token ids int64[tokens] of a text."""

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""


class CharacterTokenizer:
    """One token a character; the id is the character's place in the vocabulary."""

    def __init__(self, vocabulary: str) -> None:
        self.vocabulary = vocabulary
        self._codes = {character: code for code, character in enumerate(vocabulary)}

    def encode(self, text: str) -> NDArray[np.int64]:
        """Token ids int64[characters]; a character outside the vocabulary is an error that names it."""
        try:
            return np.fromiter((self._codes[character] for character in text), np.int64, len(text))
        except KeyError as error:
            raise ModelError(f"the vocabulary has no character {error.args[0]!r}; remove it from the text") from None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids."""
        return "".join(self.vocabulary[code] for code in ids)


class SubwordTokenizer:
    """A vocabulary of word pieces, in the hands of the tokenizers package."""

    def __init__(self, tokenizer: Tokenizer, context: int | None = None) -> None:
        self._tokenizer = tokenizer
        tokenizer.no_padding()
        if context is None:
            tokenizer.no_truncation()
        else:
            tokenizer.enable_truncation(context)

    def encode(self, text: str) -> NDArray[np.int64]:
        """Token ids int64[tokens], with the special tokens that the model's tokenizer adds ([CLS], [SEP])."""
        return np.asarray(self._tokenizer.encode(text).ids, np.int64)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        return str(self._tokenizer.decode([int(code) for code in ids]))


def load_tokenizer(path: Path, context: int | None = None) -> TextTokenizer:
    """Find the tokenizer of a model.

    Parameters
    ----------
    path : Path            A GGUF file, a model file, or the folder with tokenizer.json, or config.json with a
                           'vocabulary' of characters.
    context : int          Longest sequence that encode returns; None keeps all tokens.

    Raises
    ------
    ModelError             If there is none.
    """
    if path.suffix == ".gguf":
        return SubwordTokenizer(_from_gguf(GgufFile(path)), context)
    folder = path if path.is_dir() else path.parent
    if (folder / "tokenizer.json").is_file():
        try:
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # the package raises Exception itself
            raise ModelError(f"{folder / 'tokenizer.json'}: cannot be read ({error}); fetch it again") from error
        return SubwordTokenizer(tokenizer, context)
    if (folder / "config.json").is_file():
        vocabulary = read_json(folder / "config.json").get("vocabulary")
        if isinstance(vocabulary, str):
            return CharacterTokenizer(vocabulary)
    inside = sorted(folder.glob("*.gguf")) if path.is_dir() else []
    if len(inside) == 1:
        return SubwordTokenizer(_from_gguf(GgufFile(inside[0])), context)
    raise ModelError(f"{path}: no tokenizer; put tokenizer.json, or config.json with a 'vocabulary', beside the model")


def _from_gguf(file: GgufFile) -> Tokenizer:
    """Byte-level BPE from the file's vocabulary and merges."""
    kind, split = file.field("tokenizer.ggml.model"), file.field("tokenizer.ggml.pre", "default")
    if kind != "gpt2" or split != "smollm":
        raise ModelError(
            f"{file.path}: tokenizer {kind!r} with splitting {split!r} is not supported, "
            "only 'gpt2' with 'smollm'; put a tokenizer.json into a folder and name that"
        )
    tokens, types = file.field("tokenizer.ggml.tokens"), file.field("tokenizer.ggml.token_type")
    merges = [tuple(pair.split(" ", 1)) for pair in file.field("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={token: code for code, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False)
            for token, type_ in zip(tokens, types, strict=True)
            if type_ in (_CONTROL, _USER_DEFINED)
        ]
    )
    return tokenizer
