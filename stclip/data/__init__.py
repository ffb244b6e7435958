"""Everything that is read from disk: labels, annotations, boxes, frames, and batches of them."""

from stclip.data.annotations import DetectionDataset, Keyframe, Request
from stclip.data.build import DATASETS, build_dataset, build_test_loader, build_train_loader
from stclip.data.labels import Labels, read_label_file
from stclip.data.loaders import BatchLoader

__all__ = [
    "DATASETS",
    "BatchLoader",
    "DetectionDataset",
    "Keyframe",
    "Labels",
    "Request",
    "build_dataset",
    "build_test_loader",
    "build_train_loader",
    "read_label_file",
]
