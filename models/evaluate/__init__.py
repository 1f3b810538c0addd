"""Accuracy of a compressed model in the arithmetic of its hardware, and the proof that it is that arithmetic.

task = task_for(source, model, cache_dir, Slice())
compressed = calibrate(compress(model, recipe), task.calibration_feeds())
evaluation = judge(task, baseline_records(model, task), compressed_records(compressed, task))
"""

from sparsefab.models.evaluate.agreement import LayerAgreement, agreement, reference_layer
from sparsefab.models.evaluate.calibrate import calibrate
from sparsefab.models.evaluate.data import Slice, task_for
from sparsefab.models.evaluate.evaluation import (
    Evaluation,
    Figure,
    executor,
    judge,
)
from sparsefab.models.evaluate.records import RecordCache, code_version, records_key
from sparsefab.models.evaluate.runner import BitTrueRunner
from sparsefab.models.evaluate.tasks import EvaluationProtocol, ImageTask, SimilarityTask, Task, TextTask

__all__ = [
    "BitTrueRunner",
    "Evaluation",
    "EvaluationProtocol",
    "Figure",
    "ImageTask",
    "LayerAgreement",
    "RecordCache",
    "SimilarityTask",
    "Slice",
    "Task",
    "TextTask",
    "agreement",
    "calibrate",
    "code_version",
    "executor",
    "judge",
    "records_key",
    "reference_layer",
    "task_for",
]
