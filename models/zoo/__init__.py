"""Models with their evaluation data: two embedded ones, and pinned downloads (`sparsefab.models.zoo.fetch.fetch`)."""

from sparsefab.models.zoo.catalog import ZooEntry, entries, get
from sparsefab.models.zoo.evaluation import (
    FASHION_FOLDER,
    LabelledImages,
    TextData,
    calibration_images,
    calibration_text,
    evaluation_images,
    evaluation_text,
    similarity_set,
)
from sparsefab.models.zoo.fetch import locate, read_manifest

__all__ = [
    "FASHION_FOLDER",
    "LabelledImages",
    "TextData",
    "ZooEntry",
    "calibration_images",
    "calibration_text",
    "entries",
    "evaluation_images",
    "evaluation_text",
    "get",
    "locate",
    "read_manifest",
    "similarity_set",
]
