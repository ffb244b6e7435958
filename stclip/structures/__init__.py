"""Plain data that the layers hand to one another."""

from stclip.structures.batch import ClipBatch, Detections, FrameKey, PersonLayout
from stclip.structures.needs import Needs
from stclip.structures.raw import RawPictures
from stclip.structures.tubes import Tube

__all__ = ["ClipBatch", "Detections", "FrameKey", "Needs", "PersonLayout", "RawPictures", "Tube"]
