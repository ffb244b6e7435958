"""float32 or autocast, the same way in training and testing.

Under autocast the matrix products, and what runs between the blocks, are 16-bit. Kept in float32:

- parameters, their gradients and the optimizer's state: an update is smaller than 16 bits resolve;
- the sums inside LayerNorm and softmax;
- the sum of LoRA and the frozen weight, where it is taken, which is without gradients; with
  gradients LoRA is a path of its own;
- cosines, logits and loss (models/stclip.py, models/losses.py), since the temperature magnifies
  rounding 14 times.

A test casts weights, and adds LoRA to them, once (models/fast.py). Training casts frozen
weights in every forward: 86 million took some 10 ms of one core, too little to keep a second copy.
"""

import functools
import logging
from contextlib import AbstractContextManager, nullcontext

import torch

_log = logging.getLogger(__name__)

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """The context of a forward: fp32, bf16 or fp16; the first one of a slow precision says so."""
    if precision == "fp32":
        return nullcontext()
    if device.type == "cpu":
        _warn_if_slow(precision)
    return torch.autocast(device.type, dtype=AUTOCAST[precision])


@functools.cache
def _warn_if_slow(precision: str) -> None:
    """Log, once, that the processor has no instructions for products in 16 bits."""
    # oneDNN asks the processor; builds of PyTorch without it say nothing.
    asked = getattr(torch.ops.mkldnn, f"_is_mkldnn_{precision}_supported", None)
    if asked is not None and not asked():
        _log.warning(
            "%s: this processor has no instructions for products in %s, and takes several times "
            "as long for them as in float32; choose fp32 (MODEL.PRECISION, --precision)",
            precision,
            str(AUTOCAST[precision]).removeprefix("torch."),
        )
