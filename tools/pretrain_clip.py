"""The command ``stclip puppet pretrain``; --help explains it."""

from stclip.commands import launch

if __name__ == "__main__":
    launch("puppet pretrain")
