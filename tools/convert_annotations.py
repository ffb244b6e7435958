"""The command ``stclip convert-annotations``; --help explains it."""

from stclip.commands import launch

if __name__ == "__main__":
    launch("convert-annotations")
