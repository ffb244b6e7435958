"""The command ``stclip puppet draw``; --help explains it."""

from stclip.commands import launch

if __name__ == "__main__":
    launch("puppet draw")
