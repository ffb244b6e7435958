"""One local config per run: defaults, then yaml files, then command-line pairs."""

from stclip.config.defaults import get_cfg_defaults
from stclip.config.load import differences, load_config, save_config, saved_config, warn_scales

__all__ = [
    "differences",
    "get_cfg_defaults",
    "load_config",
    "save_config",
    "saved_config",
    "warn_scales",
]
