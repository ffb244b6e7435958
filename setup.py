"""The package's metadata; settings of tools are in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "stclip/__init__.py").read_text(), re.M)
assert VERSION, "stclip/__init__.py states no version"

SHIPPED = {
    "stclip.shipped.configs": "configs",
    "stclip.shipped.data.label_splits": "data/label_splits",
}

setup(
    name="stclip",
    version=VERSION[1],
    description="Zero-shot human action detection in video: ST-CLIP in PyTorch",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The stclip authors",
    license="MIT",
    license_files=["LICENSE", "NOTICE", "licenses/*"],
    classifiers=[
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    python_requires=">=3.10",
    # Configs and label splits stand at the top of the repository, where people look for them; in an
    # installed package they lie in stclip/shipped.
    packages=[*find_packages(include=["stclip", "stclip.*"]), *SHIPPED],
    package_dir=SHIPPED,
    entry_points={"console_scripts": ["stclip = stclip.commands:main"]},
    package_data={
        "stclip": ["assets/*", "*/*.jinja", "serve/page.*"],
        **{name: ["**/*.yaml", "**/*.txt"] for name in SHIPPED},
    },
    install_requires=[
        # Earlier ones convert pictures of BT.709, as most large videos are, with BT.601's weights:
        # off by up to 22 of 255. Before 14.2 they also do not say how a picture is turned.
        "av>=17",
        "ftfy",
        "jinja2",  # the page of the quickstart's report
        "matplotlib",  # its charts, and those of stclip benchmark scale
        "numpy",
        "pillow",
        "pyyaml",
        "regex",
        "safetensors",
        "tensorboard",
        "torch>=2.6",
        # Beside torch, so that pip picks two that fit each other.
        "torchvision",
        "tqdm",
        # Follows people; brings OpenCV, which draws boxes into videos.
        "trackers>=2.6",
        "yacs",
    ],
    extras_require={
        "app": ["gradio>=6"],  # stclip serve
        # The most accurate of the person detectors; older ones have no D-FINE.
        "dfine": ["transformers>=4.52"],
        "elan": ["pympi-ling"],  # one of the exports of stclip detect
        # stclip export, and detect --onnx, which needs onnxruntime alone.
        "onnx": ["onnx", "onnxruntime", "onnxscript"],
        # Other CLIPs; transformers reads the tokenizers of SigLIP and others.
        "open_clip": ["open_clip_torch>=3.3", "transformers"],
        # playwright drives a browser of the system, chromium; its tests are skipped without one.
        "dev": [
            "gradio>=6",
            "hypothesis",
            "mypy",
            "onnx",
            "onnxruntime",
            "onnxscript",
            "open_clip_torch>=3.3",
            "playwright",
            "pre-commit",
            "pytest>=7.3",
            "pytest-xdist",
            "ruff",
        ],
        # Other implementations that tests and benchmarks compare with.
        "parity": ["open_clip_torch", "transformers"],
    },
)
