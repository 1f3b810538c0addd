"""Accuracy of a compressed model in the arithmetic of its hardware, and the proof that it is that arithmetic.

    task = zoo_task("char-llama", model, cache_dir)
    compressed = calibrate(compress(model, recipe), task.calibration_feeds())
    evaluation = judge(task, baseline_records(model, task), compressed_records(compressed, task))
"""

from sparsefab.models.evaluate.agreement import LayerAgreement, agreement, reference_layer
from sparsefab.models.evaluate.calibrate import calibrate
from sparsefab.models.evaluate.evaluation import Evaluation, Figure, baseline_records, compressed_records, judge
from sparsefab.models.evaluate.runner import BitTrueRunner
from sparsefab.models.evaluate.tasks import EvaluationProtocol, ImageTask, SimilarityTask, Task, TextTask, zoo_task

__all__ = [
    "BitTrueRunner", "Evaluation", "EvaluationProtocol", "Figure", "ImageTask", "LayerAgreement", "SimilarityTask",
    "Task", "TextTask", "agreement", "baseline_records", "calibrate", "compressed_records", "judge", "reference_layer",
    "zoo_task",
]
