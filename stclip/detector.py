"""ST-CLIP for people who have frames and boxes of their own: load a checkpoint, get scores."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stclip.config import get_cfg_defaults, saved_config
from stclip.config.load import flatten
from stclip.data.chunks import ChunkKeyframe, make_chunk
from stclip.data.frames import FrameList
from stclip.data.proposals import Proposals
from stclip.engine.distributed import choose_device
from stclip.engine.precision import autocast
from stclip.errors import UserError
from stclip.hub.card import make_card, read_results
from stclip.hub.folder import (
    NOT_IN_SHAPES,
    Published,
    Training,
    make_config,
    training_of,
    write_folder,
)
from stclip.hub.remote import push, read_weights
from stclip.models.build import (
    Model,
    build_model,
    config_of_state,
    device_of,
    encode_labels,
)
from stclip.models.losses import class_scores
from stclip.models.onnx import OnnxModel
from stclip.structures import ClipBatch, FrameKey, Needs
from stclip.structures.groups import GROUPS
from stclip.structures.wordings import split_label


class Detector:
    """A model with a vocabulary.

    Args:
        model: ST-CLIP or a baseline, on the device that it is to run on, or the files of one.
        labels: C action names, in any words; they need not have been trained on. ``wave | a person
            waving | waving`` is called wave, and is what the average of the two texts is.
        groups: the group of names that have one: pose, object or person. Poses exclude each other
            (a softmax over them); every other name, also one without a group, stands for itself (a
            sigmoid). None: all names exclude each other.
        window_stride: from one of the frames that are looked at to the next; None: as in training.
        templates: texts with one {} each, in which the text encoder reads the names; averaged.

    Attributes:
        training: what is known of the model's training, for the model card.
        commit: of the Hugging Face Hub, if the model was loaded by its name there.
    """

    training = Training()
    commit: str | None = None

    def __init__(
        self,
        model: Model | OnnxModel,
        labels: Sequence[str],
        groups: Mapping[str, str] | None = None,
        window_stride: int | None = None,
        templates: Sequence[str] = (),
    ) -> None:
        self.model = model.eval()
        marked = getattr(model, "marked", None) is not None
        needs = Needs(model.clip.image_size, model.window_length, frame_boxes=marked)
        self.needs = getattr(model, "needs", needs)
        if window_stride is not None:
            self.needs = replace(self.needs, stride=window_stride)
        self.device = device_of(model)
        for name, group in (groups or {}).items():
            if group not in GROUPS:
                raise UserError(
                    f"groups: {name!r} has {group!r}: one of {', '.join(GROUPS)} expected"
                )
        self.groups = None if groups is None else dict(groups)
        self.templates = tuple(templates)
        self.labels = labels

    @property
    def labels(self) -> list[str]:
        """The names of the vocabulary; setting it encodes the new ones."""
        return self._labels

    @labels.setter
    def labels(self, labels: Sequence[str]) -> None:
        names = list(labels)
        if isinstance(labels, str) or not names or not all(isinstance(n, str) for n in names):
            raise UserError(f"labels: a list of action names expected, found {labels!r:.60}")
        self._labels = [split_label(name)[0] for name in names]
        self._vocabulary = encode_labels(self.model, names, templates=self.templates)

    def score(
        self,
        frames: Sequence[NDArray[np.uint8]],
        boxes: NDArray[np.floating] | Sequence[Sequence[float]],
        keyframe: int | None = None,
    ) -> NDArray[np.float32]:
        """What each person of a keyframe is doing.

        Args:
            frames: consecutive RGB frames, each (h, w, 3) uint8 and of one size; the model looks at
                those around the keyframe (by default nine, as far apart as in training).
            boxes: (N, 4) xyxy in pixels, the persons in the keyframe.
            keyframe: its place in ``frames``, from 0; by default the middle one.

        Returns:
            (N, C) float32, in the order of ``boxes``: a softmax over the vocabulary for each box;
            with groups a softmax over the poses, and a sigmoid for every other name. NaN for a box
            that is empty once it is clipped to the frame.

        Raises:
            UserError: an argument of the wrong shape or type.
        """
        video = FrameList(frames)
        place = len(video) // 2 if keyframe is None else keyframe
        if not 0 <= place < len(video):
            raise UserError(f"keyframe: 0 to {len(video) - 1} expected, found {place}")
        array = _as_boxes(boxes)
        # The scores hold the boxes' numbers, so that dropped ones can be recognised.
        numbers = np.arange(len(array), dtype=np.float32)
        persons = ChunkKeyframe(FrameKey("", place + 1), Proposals(array, numbers))
        batch = make_chunk(video, [persons], self.needs)
        scores = np.full((len(array), len(self._labels)), np.nan, dtype=np.float32)
        scores[batch.det_scores.long().numpy()] = self.score_batch(batch)
        return scores

    def score_batch(self, batch: ClipBatch, precision: str = "fp32") -> NDArray[np.float32]:
        """The scores (N, C) of the persons of a batch on the CPU, which has what ``needs`` says.

        Args:
            batch: keyframes and their persons.
            precision: fp32, or autocast to bf16 or fp16.
        """
        groups = None if self.groups is None else [self.groups.get(name) for name in self._labels]
        with torch.inference_mode(), autocast(precision, self.device):
            output = self.model(batch.to(self.device), self._vocabulary)
        return class_scores(output.logits, groups).cpu().numpy()

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        dtype: str = "float32",
        name: str | None = None,
        license: str | None = None,
        results: str | Path | None = None,
        overwrite: bool = False,
    ) -> None:
        """Save ST-CLIP as a folder that ``load`` and the Hugging Face Hub take (hub/folder.py).

        All weights are in it, CLIP's included, and so are groups and templates. The vocabulary is
        not: whoever loads it names labels.

        Args:
            folder: is made if it is not there.
            dtype: what weights are stored as: float32, which scores bit for bit the same when it is
                loaded; or float16 or bfloat16, of half the size.
            name: what the model card says to load, such as USER/NAME; None: the folder's name.
            license: of these weights, as the Hub abbreviates it (mit, ...), for the model card.
            results: OUTPUT_DIR/inference/<dataset> of ``stclip test`` with them, for the card.
            overwrite: replace the three files if they exist.

        Raises:
            UserError: it is no ST-CLIP, a file exists or cannot be written, the results cannot be
                read, a weight does not fit the dtype, or the extra ``hub`` is not installed.
        """
        stride, training = self.needs.stride, self.training
        config = make_config(self.model, stride, self.groups, self.templates, training, dtype)
        count = sum(parameter.numel() for parameter in self.model.parameters())
        found = None if results is None else read_results(results)
        card = make_card(config, count, name or Path(folder).resolve().name, license, found)
        write_folder(folder, self.model, config, card, overwrite)

    def push_to_hub(
        self, name: str, *, private: bool | None = None, overwrite: bool = False, **options: Any
    ) -> str:
        """Upload what ``save_pretrained`` saves to the Hugging Face Hub.

        Args:
            name: USER/NAME; the repository is made if it is not there.
            private: whether a new repository is; None: as the account's settings say.
            overwrite: replace the files if the repository has them; its history keeps the old ones.
            options: dtype, license and results of ``save_pretrained``.

        Returns:
            The address of the repository.

        Raises:
            UserError: as ``save_pretrained``; nobody is logged in, or the upload fails.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, name=name, **options)
            return push(folder, name, private, overwrite)


def load(
    checkpoint: str | Path,
    labels: Sequence[str],
    device: str = "auto",
    groups: Mapping[str, str] | None = None,
    fast: bool = True,
) -> Detector:
    """Read a checkpoint, ours or the reference's, and give it a vocabulary.

    Args:
        checkpoint: a file that ``stclip train`` or the reference wrote; a folder of
            ``Detector.save_pretrained``; or, where there is neither, the name of a model on the
            Hugging Face Hub, USER/NAME or USER/NAME@REVISION (extra ``hub``), which is fetched once
            and then found without a network. Of a folder or name only safetensors are read.
        labels: C action names.
        device: auto, cpu or cuda.
        groups: the groups of some of the names, see ``Detector``. If the weights were trained with
            several labels a person (ALL_GROUP), they are added to the groups of that training. None
            leaves it at those; without such a training then all names exclude each other.
        fast: MODEL.FAST, of the whole process: False computes by the plain formulas.

    Raises:
        UserError: the file cannot be read or fetched, or is no such checkpoint; there are no
            labels; or a group that does not exist.
    """
    content = read_weights(checkpoint)
    cfg = get_cfg_defaults()
    cfg.MODEL.FAST = fast
    # What shapes do not show stands in the config that the weights were trained with.
    trained = saved_config(content.config, f"the config kept in {checkpoint}").MODEL
    if trained.NAME == "xclip":
        raise UserError(
            f"{checkpoint}: found X-CLIP as a baseline, expected ST-CLIP: score a dataset with "
            "it by stclip test, or give X-CLIP's own weights to stclip.load_xclip"
        )
    values = dict(flatten(trained))
    settings = {key: values[key] for key in NOT_IN_SHAPES} | config_of_state(content.model)
    for key, value in settings.items():
        cfg.MODEL.merge_from_list([key, value])
    known = content.groups
    if groups is not None:
        known = {**(known or {}), **groups}
    model = build_model(cfg, content.model, content.activation, str(checkpoint))
    model.to(choose_device(str(device)))
    detector = Detector(model, labels, known, templates=trained.TEMPLATES)
    detector.training = training_of(content)
    detector.commit = content.commit if isinstance(content, Published) else None
    return detector


def _as_boxes(boxes: NDArray[np.floating] | Sequence[Sequence[float]]) -> NDArray[np.float32]:
    try:
        array = np.asarray(boxes, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"boxes: (N, 4) numbers expected: {error}") from error
    if array.size == 0:
        return np.zeros((0, 4), dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != 4 or not np.isfinite(array).all():
        raise UserError(
            f"boxes: finite numbers of shape (N, 4) expected, found shape {array.shape}"
            f"{'' if np.isfinite(array).all() else ' with NaN or infinity'}"
        )
    return array
