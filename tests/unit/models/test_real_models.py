"""Published models against figures that were computed elsewhere; needs `sparsefab fetch` beforehand."""

from pathlib import Path

import numpy as np
import pytest

from sparsefab.cli.options import default_cache_dir
from sparsefab.errors import ModelError
from sparsefab.models.execute import execute
from sparsefab.models.load import load_model
from sparsefab.models.tokenize import load_tokenizer
from sparsefab.models.zoo.evaluation import evaluation_images, evaluation_text, similarity_set
from sparsefab.models.zoo.fetch import locate

pytestmark = pytest.mark.slow
CACHE = default_cache_dir()


def folder(name: str) -> Path:
    """The fetched model, or a reason to skip."""
    try:
        return locate(name, CACHE)
    except ModelError as error:
        pytest.skip(str(error))


def test_smollm2_perplexity() -> None:
    """An independent PyTorch forward pass of the same weights gave 24.178 on the same 4,088 predicted tokens."""
    place = folder("smollm2-135m")
    model, tokenizer = load_model(place), load_tokenizer(place)
    assert model.metadata["quantization"] == "Q4_1, Q8_0, F32"
    prompt = tokenizer.encode("The capital of France is")
    logits = execute(model, {"input_ids": prompt[None]})["logits"]
    assert tokenizer.decode([int(logits[0, -1].argmax())]) == " Paris"
    windows = tokenizer.encode(evaluation_text("smollm2-135m", CACHE).text[20_000:60_000])[: 8 * 512].reshape(8, 512)
    losses = []
    for window in windows:
        logits = execute(model, {"input_ids": window[None]})["logits"][0, :-1].astype(np.float64)
        chosen = logits[np.arange(511), window[1:]]
        top = logits.max(1)
        losses.append(np.log(np.exp(logits - top[:, None]).sum(1)) + top - chosen)
    assert np.exp(np.mean(losses)) == pytest.approx(24.1786, abs=5e-4)


def test_minilm_ranks_documents_as_people_do() -> None:
    """Pearson correlation over the 1,225 pairs of the Lee documents; ONNX Runtime on the same weights gave 0.656."""
    place = folder("minilm-l6")
    model, tokenizer = load_model(place), load_tokenizer(place, context=256)
    data = similarity_set("minilm-l6", CACHE)
    rows = []
    for document in data.documents:
        ids = tokenizer.encode(document)[None]
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
        rows.append(execute(model, feeds, outputs=["embedding"])["embedding"][0])
    embeddings = np.array(rows) / np.linalg.norm(rows, axis=1, keepdims=True)
    upper = np.triu_indices(len(rows), 1)
    correlation = np.corrcoef((embeddings @ embeddings.T)[upper], data.similarity[upper])[0, 1]
    assert correlation == pytest.approx(0.656, abs=1e-3)


def test_efficientnet_names_the_pictures() -> None:
    """PyTorch on the same weights and preprocessing names 18 of 20 pictures, 19 within the first five."""
    model = load_model(folder("efficientnet-lite0"))
    data = evaluation_images("efficientnet-lite0", CACHE)
    order = execute(model, {"image": data.inputs()})["logits"].argsort(1)[:, ::-1]
    assert int((order[:, 0] == data.labels).sum()) == 18
    assert int((order[:, :5] == data.labels[:, None]).any(1).sum()) == 19
