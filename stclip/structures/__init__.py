"""Plain data that the layers hand to one another."""

from stclip.structures.batch import ClipBatch, Detections, FrameKey

__all__ = ["ClipBatch", "Detections", "FrameKey"]
