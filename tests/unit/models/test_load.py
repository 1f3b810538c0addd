"""Finding the model of a path, and the tokenizers beside it."""

import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from sparsefab.errors import ModelError
from sparsefab.models.load import load_model
from sparsefab.models.onnx_export import export_onnx
from sparsefab.models.tokenize import CharacterTokenizer, load_tokenizer


def test_a_folder_holds_one_model(llama_folder: Path) -> None:
    assert load_model(llama_folder).workload.family == "decoder"
    assert load_model(llama_folder / "model.safetensors").workload.family == "decoder"
    (llama_folder / "second.safetensors").write_bytes((llama_folder / "model.safetensors").read_bytes())
    with pytest.raises(ModelError, match=r"holds 2 models \(model\.safetensors, second\.safetensors, .*\); name one"):
        load_model(llama_folder)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no model; looked for"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match="no such file"):
        load_model(tmp_path / "absent.onnx")
    with pytest.raises(ModelError, match=r"no tokenizer; put tokenizer\.json"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("kind", ["onnx", "safetensors"])
def test_damage_anywhere_is_told_in_one_line(kind: str, llama_folder: Path, tmp_path: Path) -> None:
    """Cut a file short or change some bytes, 60 times: either it still loads, or one line says what is wrong."""
    path = llama_folder / "model.safetensors"
    if kind == "onnx":
        path = tmp_path / "model.onnx"
        export_onnx(load_model(llama_folder), path)
    whole, rng = path.read_bytes(), np.random.default_rng(11)
    refused: list[str] = []
    for attempt in range(60):
        damaged = bytearray(whole)
        if attempt % 3:
            for place in rng.integers(len(whole) if attempt % 3 == 1 else 2000, size=4):
                damaged[place] = rng.integers(256)
        else:
            damaged = damaged[: rng.integers(len(whole))]
        path.write_bytes(damaged)
        try:
            load_model(path)
        except ModelError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert not any("\n" in message for message in refused)


def test_characters(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"vocabulary": "\n abc"}))
    tokenizer = load_tokenizer(tmp_path / "model.safetensors")
    ids = tokenizer.encode("cab a\n")
    assert ids.tolist() == [4, 2, 3, 1, 2, 0]
    assert ids.dtype == np.int64
    assert tokenizer.decode(ids.tolist()) == "cab a\n"
    with pytest.raises(ModelError, match="no character 'x'"):
        tokenizer.encode("axe")
    assert CharacterTokenizer("ab").encode("").tolist() == []


def test_tokenizer_json(tmp_path: Path) -> None:
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "cat": 4, "##s": 5}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.enable_padding(length=20)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert load_tokenizer(tmp_path).encode("a cats dog").tolist() == [1, 3, 4, 5, 0, 2]
    assert load_tokenizer(tmp_path, context=4).encode("a cats dog").tolist() == [1, 3, 4, 2]
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot be read"):
        load_tokenizer(tmp_path)
