"""Person detectors behind one interface: frames in, boxes of persons out.

    detector = load_detector("nanodet")
    for boxes, scores in detector(frames):  # frames (n, h, w, 3) uint8 RGB
        ...

Shapes:
    n frames of one size, h high and w wide
    k persons in a frame
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import clip_boxes_to_image, nms

from stclip.engine.distributed import choose_device
from stclip.errors import UserError
from stclip.footage.nanodet import MEAN, PERSON, STD, STRIDES, NanoDet, decode_boxes
from stclip.models.tensor_files import read_tensors

DEFAULT = "nanodet"
DFINE = "dfine"
DFINE_SOURCE = "ustc-community/dfine-small-coco"  # on Hugging Face
_DFINE_FILES = ["config.json", "preprocessor_config.json", "model.safetensors"]
NANODET_FILE = "nanodet.safetensors"
NANODET_SIDE = 416  # the longer side of what NanoDet-g was trained with, in pixels


class Persons(NamedTuple):
    """The persons of one frame, the surest first.

    Attributes:
        boxes: (k, 4) float32 xyxy in pixels, inside [0, w] x [0, h], none of them empty.
        scores: (k,) float32, from 0 to 1.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]


class PersonDetector(ABC):
    """Finds persons in frames, each frame by itself.

    Args:
        model: its weights are moved to the device.
        device: where the model runs.
        threshold: persons of a lower score are dropped, from 0 to 1. None: ``default_threshold``.

    Raises:
        UserError: the threshold is not from 0 to 1.
    """

    default_threshold: ClassVar[float] = 0.5
    # Of two boxes whose IoU is larger the surer one stays; None: the model itself sees to it.
    nms_iou: ClassVar[float | None] = None
    frames_at_once: ClassVar[int] = 8  # more make nothing faster and need more memory

    def __init__(
        self, model: nn.Module, device: torch.device, threshold: float | None = None
    ) -> None:
        self.threshold = self.default_threshold if threshold is None else threshold
        if not 0 <= self.threshold <= 1:
            raise UserError(f"threshold of the detector: 0 to 1 expected, found {threshold}")
        self.device = device
        self.model = model.to(device).eval()

    def __call__(self, frames: NDArray[np.uint8]) -> list[Persons]:
        """Find the persons of every frame.

        Args:
            frames: (n, h, w, 3) uint8 RGB; n may be 0.

        Returns:
            One record a frame.

        Raises:
            UserError: the frames are of another type or shape.
        """
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
            kind = getattr(frames, "dtype", type(frames).__name__)
            raise UserError(f"frames: an array of uint8 expected, 0 to 255, found {kind}")
        if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape[1:]:
            raise UserError(f"frames: shape (n, h, w, 3) expected, RGB, found {frames.shape}")
        height, width = frames.shape[1:3]
        persons = []
        for start in range(0, len(frames), self.frames_at_once):
            chunk = np.ascontiguousarray(frames[start : start + self.frames_at_once])
            # torch warns of arrays that it must not write to.
            pictures = torch.from_numpy(chunk if chunk.flags.writeable else chunk.copy())
            with torch.inference_mode():
                found = self._find(pictures)
                persons += [self._choose(boxes, scores, height, width) for boxes, scores in found]
        return persons

    @abstractmethod
    def _find(self, frames: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
        """Candidates of every frame: boxes (m, 4) xyxy in pixels, and scores (m,), on any device.

        Args:
            frames: (n, h, w, 3) uint8 RGB, on the CPU; n is not 0.
        """

    def _choose(self, boxes: Tensor, scores: Tensor, height: int, width: int) -> Persons:
        likely = scores >= self.threshold
        boxes = clip_boxes_to_image(boxes[likely].float(), (height, width))
        scores = scores[likely].float()
        filled = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        boxes, scores = boxes[filled], scores[filled]
        if self.nms_iou is None:
            order = scores.argsort(descending=True, stable=True)
        else:
            order = nms(boxes, scores, self.nms_iou)
        return Persons(boxes[order].cpu().numpy(), scores[order].cpu().numpy())


class NanoDetDetector(PersonDetector):
    """NanoDet-g, whose weights are part of the package (assets/nanodet_card.md).

    A frame is resized so that its longer side has 416 pixels, as in the training; black fills the
    shorter one up to a multiple of the coarsest stride.
    """

    # Both balance recall and precision best on frames marked by hand (see the card).
    default_threshold = 0.4
    nms_iou = 0.5

    def __init__(
        self, model: NanoDet, device: torch.device, threshold: float | None = None
    ) -> None:
        super().__init__(model, device, threshold)
        # Convolutions of several frames take half the time on a CPU with channels last.
        self.model = self.model.to(memory_format=torch.channels_last)
        self._mean = torch.tensor(MEAN, device=device)[:, None, None]
        self._std = torch.tensor(STD, device=device)[:, None, None]

    def _find(self, frames: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
        height, width = frames.shape[1:3]
        scale = NANODET_SIDE / max(height, width)
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        # On the CPU, in bytes: a tenth of the time of floats. Without antialiasing, people in
        # large frames would lose their thin parts.
        pictures = functional.interpolate(
            frames.permute(0, 3, 1, 2), size=size, mode="bilinear", antialias=True
        )
        missing = [-side % STRIDES[-1] for side in size]
        pictures = functional.pad(pictures, (0, missing[1], 0, missing[0]))
        images = (pictures.to(self.device).flip(1) - self._mean) / self._std  # RGB to BGR
        scores, distances = self.model(images.contiguous(memory_format=torch.channels_last))
        boxes = decode_boxes(distances, *images.shape[2:])
        boxes *= torch.tensor([width / size[1], height / size[0]] * 2, device=self.device)
        return zip(boxes, scores[:, :, PERSON], strict=True)


class TorchvisionDetector(PersonDetector):
    """A detection model of torchvision, such as Faster R-CNN.

    Args:
        model: takes a list of (3, h, w) from 0 to 1, and gives boxes, labels and scores for each.
        device: see ``PersonDetector``.
        threshold: likewise; most models drop what is below 0.05 themselves.
        person: the label of persons.
    """

    frames_at_once = 2  # each is resized to some 800 x 1333 pixels

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        threshold: float | None = None,
        person: int = 1,
    ) -> None:
        super().__init__(model, device, threshold)
        self.person = person

    def _find(self, frames: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
        images = frames.to(self.device).permute(0, 3, 1, 2).float() / 255
        for found in self.model(list(images)):
            persons = found["labels"] == self.person
            yield found["boxes"][persons], found["scores"][persons]


class DFineDetector(PersonDetector):
    """D-FINE (Peng et al. 2024), from the package transformers.

    Args:
        model: a ``DFineForObjectDetection``.
        device: see ``PersonDetector``.
        threshold: likewise.
        processor: the image processor that belongs to the model.

    Raises:
        UserError: the model knows no class "person".
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        threshold: float | None = None,
        *,
        processor: Any,
    ) -> None:
        super().__init__(model, device, threshold)
        self.processor = processor
        config: Any = model.config
        numbers = {name.lower(): number for number, name in config.id2label.items()}
        if "person" not in numbers:
            raise UserError(f"D-FINE: a class person expected, found {', '.join(numbers)[:200]}")
        self.person = numbers["person"]

    def _find(self, frames: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
        inputs = self.processor(
            images=list(frames.permute(0, 3, 1, 2)),
            input_data_format="channels_first",  # a small frame could be taken for the other
            return_tensors="pt",
        )
        output = self.model(pixel_values=inputs["pixel_values"].to(self.device))
        sizes = [tuple(frames.shape[1:3])] * len(frames)
        for found in self.processor.post_process_object_detection(
            output, threshold=self.threshold, target_sizes=sizes
        ):
            persons = found["labels"] == self.person
            yield found["boxes"][persons], found["scores"][persons]


def load_detector(
    name: str = DEFAULT, device: str = "auto", threshold: float | None = None
) -> PersonDetector:
    """Load a detector.

    Args:
        name: ``nanodet``, which needs no network; the name of a detection model of torchvision,
            which downloads the weights at the first use; ``dfine``, which is downloaded likewise;
            ``dfine:FOLDER`` for one saved by transformers, or ``dfine:NAME`` on Hugging Face.
        device: auto, cpu, cuda or cuda:N.
        threshold: persons of a lower score are dropped, from 0 to 1. None: the detector's own.

    Raises:
        UserError: the name or the device is unknown, the threshold is out of range, a package is
            not installed, or the weights are missing, damaged or cannot be downloaded.
    """
    kind, _, source = name.partition(":")
    if name == DEFAULT:
        return NanoDetDetector(load_nanodet(), choose_device(device), threshold)
    if kind == DFINE:
        return _load_dfine(source or DFINE_SOURCE, choose_device(device), threshold)
    if name in _torchvision_names():
        return _load_torchvision(name, choose_device(device), threshold)
    raise UserError(
        f"detector {name!r}: unknown; there are {DEFAULT}, {DFINE}, {DFINE}:FOLDER, and "
        f"torchvision's {', '.join(_torchvision_names())}"
    )


def load_nanodet() -> NanoDet:
    """NanoDet-g with the weights of the package, in float32 on the CPU.

    Raises:
        UserError: the file is missing or damaged.
    """
    path = Path(str(files("stclip") / "assets" / NANODET_FILE))
    if not path.exists():
        raise UserError(
            f"{path}: the weights of {DEFAULT} are not there, though they are part of the package: "
            "install it again, or make them with tools/convert_nanodet.py"
        )
    state = read_tensors(path)
    model = NanoDet()
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    except RuntimeError as error:  # names or shapes
        raise UserError(
            f"{path}: found other weights than those of NanoDet-g; install the package again"
        ) from error
    return model.eval()


def _torchvision_names() -> list[str]:
    return torchvision.models.list_models(module=torchvision.models.detection)


def _load_torchvision(
    name: str, device: torch.device, threshold: float | None
) -> TorchvisionDetector:
    weights = torchvision.models.get_model_weights(name).DEFAULT
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = folder / weights.url.rpartition("/")[2]
    try:
        # torchvision reads the file in a way that could run code in it; so it is read once before
        # as weights only.
        weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        model = torchvision.models.get_model(name, weights=weights)
    except Exception as error:  # of the network, of the disk, of a damaged file
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        if file.exists():
            raise UserError(
                f"{file}: cannot be loaded ({reason}); delete it, and it is downloaded again"
            ) from error
        raise UserError(
            f"{file}: not there, and cannot be downloaded ({reason}); without a network, fetch "
            f"{weights.url} elsewhere and put it into {folder}"
        ) from error
    return TorchvisionDetector(model, device, threshold, weights.meta["categories"].index("person"))


def _load_dfine(source: str, device: torch.device, threshold: float | None) -> DFineDetector:
    try:
        # By its name: the types of the package would take the type checker minutes.
        hub: Any = importlib.import_module("huggingface_hub")
        transformers: Any = importlib.import_module("transformers")
        kinds = (transformers.AutoImageProcessor, transformers.DFineForObjectDetection)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"detector {DFINE}: needs the package transformers, 4.52 or later, which is not "
            f'installed: pip install "stclip[{DFINE}]"'
        ) from error
    try:
        # transformers by itself would try for minutes where there is no network.
        local = Path(source).is_dir()
        folder = source if local else hub.snapshot_download(source, allow_patterns=_DFINE_FILES)
        processor = kinds[0].from_pretrained(folder)
        model, report = kinds[1].from_pretrained(
            folder, use_safetensors=True, output_loading_info=True
        )
    except Exception as error:  # of the network, of the disk, of a damaged file
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            f"{source}: no D-FINE can be loaded ({reason}); expected a folder with "
            f"{', '.join(_DFINE_FILES)}, or a name on Hugging Face, for which the first use needs "
            "a network"
        ) from error
    wrong = sorted([*report["missing_keys"], *map(str, report["mismatched_keys"])])
    if wrong:  # transformers goes on with random weights
        raise UserError(
            f"{source}: {len(wrong)} weights of D-FINE are missing or of another shape, such as "
            f"{wrong[0]}; is it another model?"
        )
    return DFineDetector(model, device, threshold, processor=processor)
