"""The command ``stclip benchmark``; --help explains it."""

from stclip.commands import launch

if __name__ == "__main__":
    launch("benchmark")
