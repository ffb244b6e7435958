"""``python -m stclip``, and ``torchrun -m stclip``: the same as ``stclip``."""

from stclip.commands import main

main()
