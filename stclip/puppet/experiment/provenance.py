"""What an experiment was made from and with, so that its numbers can be judged and made again."""

from __future__ import annotations

import hashlib
import os
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

import stclip
from stclip.errors import UserError
from stclip.files import read_json, write_json

_INPUTS = "inputs.json"
_ASSETS = Path(stclip.__file__).parent / "assets"


def inputs(cfg: CfgNode) -> dict[str, Any]:
    """What identifies the drawn dataset and the CLIP that a config names."""
    drawn = Path(cfg.DATASETS.DATA_DIR) / cfg.DATASETS.TEST / "puppet.json"
    clip = Path(cfg.MODEL.CLIP)
    if cfg.MODEL.CLIP == "puppet":
        clip = _ASSETS / "puppet_clip.safetensors"
    return {
        "dataset": read_json(drawn) if drawn.exists() else cfg.DATASETS.TEST,
        "clip": cfg.MODEL.CLIP,
        "clip_sha256": hashlib.sha256(clip.read_bytes()).hexdigest() if clip.is_file() else None,
    }


def same_inputs(output: Path, found: dict[str, Any]) -> None:
    """Note the inputs in the output folder, or see that they are those noted there.

    Raises:
        UserError: the folder's runs were made from others.
    """
    path = output / _INPUTS
    if not path.exists():
        write_json(path, found)
        return
    noted = read_json(path)
    changed = [key for key in found if not isinstance(noted, dict) or noted.get(key) != found[key]]
    if changed:
        raise UserError(
            f"{path}: the runs in this folder were made with another {' and '.join(changed)}; "
            "choose another output folder"
        )


def versions() -> dict[str, Any]:
    """The software and the machine."""
    return {
        "stclip": stclip.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "date": datetime.now(timezone.utc).date().isoformat(),
    }
