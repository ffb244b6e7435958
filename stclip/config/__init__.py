"""One local config per run: defaults, then yaml files, then command-line pairs."""

from stclip.config.defaults import get_cfg_defaults
from stclip.config.load import load_config, save_config

__all__ = ["get_cfg_defaults", "load_config", "save_config"]
