"""The command ``stclip visualize``; --help explains it."""

from stclip.commands import launch

if __name__ == "__main__":
    launch("visualize")
