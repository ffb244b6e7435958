"""The command ``stclip gpu-check``; --help explains it."""

from stclip.commands import launch

if __name__ == "__main__":
    launch("gpu-check")
