"""The command ``stclip detect``; --help explains it."""

from stclip.commands import launch

if __name__ == "__main__":
    launch("detect")
