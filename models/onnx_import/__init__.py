"""Import of ONNX files, operator set 13 and newer.

from sparsefab.models.onnx_import import import_onnx
model = import_onnx(Path("resnet8.onnx"))
print([layer.name for layer in model.workload.weight_layers()], model.skipped)

file --reader--> nodes, constants --fold--> fewer nodes --probe--> shapes --lift--> weight layers
     --describe--> Model
"""

from collections.abc import Mapping
from pathlib import Path

from sparsefab.models.model import Model
from sparsefab.models.onnx_import.describe import describe
from sparsefab.models.onnx_import.fold import fold
from sparsefab.models.onnx_import.lift import lift
from sparsefab.models.onnx_import.probe import probe, probe_feeds
from sparsefab.models.onnx_import.reader import external_files, read_onnx

__all__ = ["external_files", "import_onnx"]


def import_onnx(path: Path, input_shapes: Mapping[str, tuple[int, ...]] | None = None) -> Model:
    """Import an ONNX model.

    Parameters
    ----------
    path : Path         The file; external data is looked for beside it.
    input_shapes : shapes by input name
                        Fixes inputs whose lengths the file leaves open. A free batch, and a free sequence of tokens,
                        need no fixing.

    Returns
    -------
    Model               Family 'decoder' if an attention is causal, 'encoder' if there is any, 'cnn' if there is a
                        convolution, else 'graph'.

    Raises
    ------
    ModelError          A truncated or foreign file, an operator set before 13, missing external data, an unsupported
                        operator, lengths that are not known, NaN in a weight; the message names it and the remedy.
    """
    graph, constants, metadata = read_onnx(path, input_shapes or {})
    feeds = probe_feeds(graph)
    graph, constants = fold(graph, constants, feeds)
    lifted = lift(graph, constants, probe(graph, constants, feeds))
    return describe(path.stem, lifted, metadata)
