"""Everything that is read from disk: annotations, detections, frames, and batches of them."""

from stclip.data.annotations import DetectionDataset, Keyframe
from stclip.data.build import (
    build_dataset,
    build_test_loader,
    build_train_loader,
    read_groups,
    read_vocabulary,
    scored_vocabulary,
)
from stclip.data.labels import read_label_file, warn_overlap
from stclip.data.loaders import BatchLoader

__all__ = [
    "BatchLoader",
    "DetectionDataset",
    "Keyframe",
    "build_dataset",
    "build_test_loader",
    "build_train_loader",
    "read_groups",
    "read_label_file",
    "read_vocabulary",
    "scored_vocabulary",
    "warn_overlap",
]
