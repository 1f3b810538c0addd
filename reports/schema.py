"""Points and evaluations as Parquet: one flat column for each figure, its bounds beside it as `_low` and `_high`.

Missing is null. Mappings (`terms`, `details`) are columns of JSON text. The schema's version stands in the file's
metadata; a file of another version is refused with `SchemaError`, so that a cache can pass over it.
"""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from sparsefab.errors import StorageError
from sparsefab.reports.points import Accuracy, Evaluation, Interval, Job, Point

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "POINT_COLUMNS",
    "SCHEMA_VERSION",
    "SchemaError",
    "decode_evaluations",
    "decode_points",
    "encode_evaluations",
    "encode_points",
    "frame",
    "row",
]

SCHEMA_VERSION = 2
_VERSION_KEY = b"sparsefab.schema"

_TEXT, _WHOLE, _REAL, _NAMES = pa.string(), pa.int64(), pa.float64(), pa.list_(pa.string())
_INTERVAL, _JSON = "interval", "json"  # these two kinds are not columns as they stand

_JOB = {
    "model": _TEXT,
    "model_hash": _TEXT,
    "recipe": _TEXT,
    "recipe_text": _TEXT,
    "data_hash": _TEXT,
    "evaluator": _TEXT,
    "fidelity": _TEXT,
    "seed": _WHOLE,
}
_ACCURACY = {
    "metric": _TEXT,
    "better": _TEXT,
    "accuracy": _INTERVAL,
    "baseline": _REAL,
    "delta": _INTERVAL,
    "protocol": _TEXT,
    "weight_bytes": _WHOLE,
    "bits_per_weight": _REAL,
    "float_layers": _NAMES,
    "details": _JSON,
}
_EVALUATION = {"key": _TEXT, **_JOB, **_ACCURACY, "reason": _TEXT}
_POINT = {
    "key": _TEXT,
    "model": _TEXT,
    "recipe": _TEXT,
    "recipe_text": _TEXT,
    "target": _TEXT,
    "device": _TEXT,
    "phase": _TEXT,
    "batch": _WHOLE,
    "context": _WHOLE,
    "fidelity": _TEXT,
    "status": _TEXT,
    "reason": _TEXT,
    "metric": _TEXT,
    "better": _TEXT,
    "accuracy": _INTERVAL,
    "baseline": _REAL,
    "delta": _INTERVAL,
    "item": _TEXT,
    "latency_s": _INTERVAL,
    "throughput_tokens_per_s": _INTERVAL,
    "energy_per_token_j": _INTERVAL,
    "power_w": _INTERVAL,
    "price_per_million_tokens_usd": _INTERVAL,
    "memory_bytes": _INTERVAL,
    "weight_bytes": _WHOLE,
    "bits_per_weight": _REAL,
    "lut": _INTERVAL,
    "ff": _INTERVAL,
    "dsp": _INTERVAL,
    "bram18": _INTERVAL,
    "uram": _INTERVAL,
    "support": _TEXT,
    "provenance": _TEXT,
    "protocol": _TEXT,
    "data_hash": _TEXT,
    "float_layers": _NAMES,
    "terms": _JSON,
    "arch": _TEXT,
    "kv": _TEXT,
}
#: What a file that lacks a newer column is read as.
_BEFORE = {"kv": ""}


class SchemaError(StorageError):
    """A Parquet file that holds something else, or was written by another version."""


def _columns(kinds: dict[str, Any]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, kind in kinds.items():
        if kind == _INTERVAL:
            columns |= {name: _REAL, f"{name}_low": _REAL, f"{name}_high": _REAL}
        else:
            columns[name] = _TEXT if kind == _JSON else kind
    return columns


POINT_COLUMNS = tuple(_columns(_POINT))


def encode_points(points: Sequence[Point]) -> bytes:
    """Write points as one Parquet file, in the given order."""
    return _encode([row(point) for point in points], _POINT)


def decode_points(content: bytes, name: str) -> list[Point]:
    """Read points back; `name` is the file's, for the message.

    Raises
    ------
    SchemaError                  If it is no such file, or of another version.
    """
    return [Point(**_unflatten(values, _POINT)) for values in _decode(content, _POINT, name)]


def encode_evaluations(evaluations: Iterable[Evaluation]) -> bytes:
    """Write evaluations as one Parquet file."""
    rows = []
    for evaluation in evaluations:
        values = {"key": evaluation.job.key, "reason": evaluation.reason}
        values |= _flatten(evaluation.job, _JOB)
        if evaluation.accuracy is not None:
            values |= _flatten(evaluation.accuracy, _ACCURACY)
        rows.append(values)
    return _encode(rows, _EVALUATION)


def decode_evaluations(content: bytes, name: str) -> list[Evaluation]:
    """Read evaluations back; raises as `decode_points` does."""
    evaluations = []
    for values in _decode(content, _EVALUATION, name):
        job = Job(**_unflatten(values, _JOB))
        found = None if values["reason"] else Accuracy(**_unflatten(values, _ACCURACY))
        evaluations.append(Evaluation(job=job, accuracy=found, reason=values["reason"]))
    return evaluations


def row(point: Point) -> dict[str, Any]:
    """A point as flat column values, None where nothing is known."""
    return _flatten(point, _POINT)


def frame(points: Sequence[Point]) -> "pd.DataFrame":
    """Points as a pandas frame with nullable columns, one row each."""
    import pandas as pd

    table = _table([row(point) for point in points], _POINT)
    kinds = {_TEXT: pd.StringDtype(), _WHOLE: pd.Int64Dtype(), _REAL: pd.Float64Dtype()}
    return table.to_pandas(types_mapper=kinds.get)


def _flatten(value: object, kinds: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, kind in kinds.items():
        content = getattr(value, name)
        if kind == _INTERVAL:
            for suffix, bound in (("", "value"), ("_low", "low"), ("_high", "high")):
                values[name + suffix] = None if content is None else getattr(content, bound)
        elif kind == _JSON:
            values[name] = json.dumps(content, sort_keys=True, allow_nan=False)
        else:
            values[name] = list(content) if kind == _NAMES else content
    return values


def _unflatten(values: dict[str, Any], kinds: dict[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, kind in kinds.items():
        content = values[name]
        if kind == _INTERVAL and content is not None:
            content = Interval(value=content, low=values[f"{name}_low"], high=values[f"{name}_high"])
        elif kind == _JSON:
            content = json.loads(content)
        elif kind == _NAMES:
            content = tuple(content)
        fields[name] = content
    return fields


def _table(rows: list[dict[str, Any]], kinds: dict[str, Any]) -> Any:
    schema = pa.schema(_columns(kinds).items(), metadata={_VERSION_KEY: str(SCHEMA_VERSION)})
    return pa.Table.from_pylist(rows, schema=schema)


def _encode(rows: list[dict[str, Any]], kinds: dict[str, Any]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(_table(rows, kinds), sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _decode(content: bytes, kinds: dict[str, Any], name: str) -> list[dict[str, Any]]:
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        metadata = file.schema_arrow.metadata or {}
        table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise SchemaError(f"{name} is damaged or no Parquet file; remove it and run again") from error
    version = metadata.get(_VERSION_KEY, b"").decode() or "none"
    if version != str(SCHEMA_VERSION):
        raise SchemaError(
            f"{name} has schema version {version}, this release reads {SCHEMA_VERSION}; "
            "use the release that wrote it, or explore again"
        )
    missing = [column for column in _columns(kinds) if column not in table.column_names]
    added = {column: _BEFORE[column] for column in missing if column in _BEFORE}
    missing = [column for column in missing if column not in added]
    if missing:
        raise SchemaError(f"{name} lacks the column {missing[0]}; is it a file of this kind?")
    return [added | values for values in table.to_pylist()]
