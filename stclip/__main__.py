"""``python -m stclip``, and ``torchrun -m stclip``: the same as ``stclip``."""

from stclip.commands import main

if __name__ == "__main__":  # and not where a process of ours is started afresh
    main()
