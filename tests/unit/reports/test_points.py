"""Values, keys, and their way through Parquet."""

import io
import math
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from sparsefab.reports.points import Cost, Evaluation, Interval, Point
from sparsefab.reports.schema import (
    POINT_COLUMNS,
    SchemaError,
    decode_evaluations,
    decode_points,
    encode_evaluations,
    encode_points,
    frame,
)
from tests.unit.reports import toy


def made_points() -> list[Point]:
    """Points of every status: ok, absent (2-bit on the GPU), failed."""
    points = []
    for job in toy.make_jobs(8):
        evaluation = Evaluation(job=job, accuracy=toy.accuracy(job))
        points += [Point.of(evaluation, case, toy.cost(evaluation, case)) for case in toy.make_cases()]
    failed = Evaluation(job=toy.make_job(9, 1.0), accuracy=None, reason="no calibration data")
    points.append(Point.of(failed, toy.make_cases()[0], Cost(status="failed", reason="no calibration data")))
    return points


@pytest.mark.parametrize(
    ("value", "low", "high"), [(1.0, 1.1, 2.0), (1.0, 0.0, 0.9), (math.nan, 0.0, 1.0), (1.0, -math.inf, 1.0)]
)
def test_an_interval_holds_its_value(value: float, low: float, high: float) -> None:
    with pytest.raises(ValueError, match="interval must"):
        Interval(value=value, low=low, high=high)


def test_points_return_from_parquet_as_they_were() -> None:
    points = made_points()
    assert {point.status for point in points} == {"ok", "absent", "failed"}
    assert decode_points(encode_points(points), "points") == points


def test_evaluations_return_from_parquet_as_they_were() -> None:
    job = toy.make_job(4, 0.5)
    evaluations = [
        Evaluation(job=job, accuracy=toy.accuracy(job)),
        Evaluation(job=toy.make_job(3, 0.5), accuracy=None, reason="out of memory"),
    ]
    assert decode_evaluations(encode_evaluations(evaluations), "evaluations") == evaluations


def test_what_is_missing_is_null_and_not_zero() -> None:
    table = frame(made_points())
    assert tuple(table.columns) == POINT_COLUMNS
    assert table.loc[table["status"] == "absent", "latency_s"].isna().all()
    assert table.loc[table["device"] != "fpga", "dsp"].isna().all()
    assert str(table["weight_bytes"].dtype) == "Int64"
    assert table.loc[table["status"] == "failed", "accuracy"].isna().all()


def test_a_file_from_before_caches_has_none() -> None:
    point = replace(made_points()[0], kv="gear")
    table = pq.read_table(io.BytesIO(encode_points([point])))
    sink = io.BytesIO()
    pq.write_table(table.drop_columns(["kv"]), sink)
    assert decode_points(sink.getvalue(), "old") == [replace(point, kv="")]


def test_a_file_of_another_kind_is_refused_by_name() -> None:
    evaluation = Evaluation(job=toy.make_job(4, 1.0), accuracy=None, reason="why")
    with pytest.raises(SchemaError, match="cache/x lacks the column"):
        decode_points(encode_evaluations([evaluation]), "cache/x")
    with pytest.raises(SchemaError, match="cache/x is damaged"):
        decode_points(encode_points(made_points())[:-9], "cache/x")
    with pytest.raises(SchemaError, match="cache/x is damaged"):
        decode_points(b"", "cache/x")


def test_the_key_follows_the_content_and_not_the_name() -> None:
    job = toy.make_job(4, 0.5)
    case = toy.make_cases()[0]
    assert replace(job, recipe="another name").key == job.key
    for change in (
        {"recipe_text": ""},
        {"data_hash": "x"},
        {"evaluator": "2"},
        {"model_hash": "m1"},
        {"seed": 1},
        {"fidelity": "full"},
        {"model": "other"},
    ):
        changed = replace(job, **change)
        assert changed.key != job.key
        assert case.key(changed) != case.key(job)
    for change in ({"target": "u50"}, {"phase": "decode"}, {"batch": 2}, {"context": 2}, {"cost_hash": "c1"}):
        assert replace(case, **change).key(job) != case.key(job)


def test_loss_counts_upwards_whichever_way_the_metric_does() -> None:
    point = made_points()[0]
    assert point.delta is not None
    assert point.loss == point.delta
    higher = replace(point, better="higher").loss
    assert higher is not None
    assert (higher.value, higher.low, higher.high) == (-point.delta.value, -point.delta.high, -point.delta.low)


def test_values_that_cannot_be_kept_are_refused_where_they_are_made() -> None:
    with pytest.raises(TypeError, match="terms must hold JSON values"):
        Cost(terms={"shape": {1, 2}})
    with pytest.raises(ValueError, match="terms must hold JSON values"):
        Cost(terms={"stall_s": math.nan})
    with pytest.raises(ValueError, match="reason"):
        Cost(status="absent")
    with pytest.raises(ValueError, match="reason"):
        Evaluation(job=toy.make_job(4, 1.0), accuracy=None)
    with pytest.raises(ValueError, match="batch must be positive"):
        replace(toy.make_cases()[0], batch=0)
