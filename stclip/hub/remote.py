"""Models on the Hugging Face Hub by their names, USER/NAME or USER/NAME@REVISION.

Of a repository only config.json and model.safetensors are fetched (folder.py), once, into the cache
of huggingface_hub (HF_HOME), where they are found without a network too. A file or folder of the
same name on this disk comes first.
"""

import importlib
import logging
import re
import textwrap
from pathlib import Path
from typing import Any

import stclip
from stclip.engine.checkpoint import Checkpoint, read_checkpoint
from stclip.errors import UserError
from stclip.hub.folder import CARD, CONFIG, WEIGHTS, read_config, read_folder

logger = logging.getLogger(__name__)

EXTRA = 'pip install "stclip[hub]"'

_WORD = r"[A-Za-z0-9][\w.-]*"
_NAME = re.compile(rf"{_WORD}/{_WORD}(@[\w./-]+)?")
# What ends so is meant as a file.
_FILES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors", ".onnx")


def read_weights(source: str | Path) -> Checkpoint:
    """The weights that a path or a name stands for, with what is known of them.

    Args:
        source: a checkpoint, ours or the reference's; a folder as folder.py describes it; or, where
            there is neither, the name of such a folder on the Hugging Face Hub.

    Raises:
        UserError: there is no such file, folder or repository, the network or the package for it is
            missing, or what is there cannot be used.
    """
    path, name = Path(source), str(source)
    if path.is_dir():
        return read_folder(path)
    if path.exists() or not is_name(name):
        return read_checkpoint(path)
    folder = fetch(name)
    try:
        found = read_folder(folder)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    found.commit = folder.name
    return found


def is_name(text: str) -> bool:
    """Whether a text can be the name of a repository, perhaps with a revision."""
    return _NAME.fullmatch(text) is not None and not text.endswith(_FILES)


def fetch(name: str) -> Path:
    """The folder of the cache that has both files of a repository, fetched if need be.

    It is called as the commit that they are of. The config is looked at before the weights are
    fetched.

    Args:
        name: USER/NAME, or USER/NAME@REVISION for a branch, tag or commit.

    Raises:
        UserError: see ``read_weights``.
    """
    hub = huggingface_hub(f"{name}: there is no such file or folder, and a name on the Hub")
    repository, _, revision = name.partition("@")
    about: dict[str, Any] = {"library_name": "stclip", "library_version": stclip.__version__}
    reason: Exception | None = None
    try:
        # Asked first, because without a network the downloads would try for long.
        hub.HfApi(**about).model_info(repository, revision=revision or None, timeout=10)
    except Exception as error:  # of the network, of the Hub
        reason = error
    try:
        config = hub.hf_hub_download(
            *(repository, CONFIG),
            **about,
            revision=revision or None,
            local_files_only=reason is not None,
        )
    except Exception as error:
        raise _explained(hub, name, CONFIG, reason or error) from error
    if reason is not None and not isinstance(reason, hub.errors.OfflineModeIsEnabled):
        logger.warning(
            "%s: taken from the cache, since the Hub cannot be asked for a newer one (%s)",
            *(name, _short(reason)),
        )
    folder = Path(config).parent
    try:
        read_config(folder / CONFIG)
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    try:
        hub.hf_hub_download(
            *(repository, WEIGHTS),
            **about,
            revision=folder.name,
            local_files_only=reason is not None,
        )
    except Exception as error:
        raise _explained(hub, name, WEIGHTS, reason or error) from error
    return folder


def push(
    folder: str | Path, name: str, private: bool | None = None, overwrite: bool = False
) -> str:
    """Upload the files of a folder, and make the repository if it is not there.

    Args:
        folder: what ``write_folder`` wrote.
        name: USER/NAME.
        private: whether a new repository is; None: as the account's settings say.
        overwrite: replace the files if the repository has them; its history keeps the old ones.

    Returns:
        The address of the repository.

    Raises:
        UserError: it has such files, nobody is logged in, or the upload fails.
    """
    if not is_name(name) or "@" in name:
        raise UserError(f"{name!r:.80}: the name of a repository expected, such as USER/NAME")
    hub = huggingface_hub(f"{name}: an upload to the Hub")
    api = hub.HfApi(library_name="stclip", library_version=stclip.__version__)
    files = {CONFIG, WEIGHTS, CARD}
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        held = sorted(files.intersection(api.list_repo_files(name)))
        if held and not overwrite:
            raise UserError(
                f"{name}: has {', '.join(held)} already; choose another name, or allow to "
                "overwrite (the history of the repository keeps what it has now)"
            )
        # One commit, so that nobody gets a config and weights that do not belong together.
        api.create_commit(
            name,
            [hub.CommitOperationAdd(file, str(Path(folder) / file)) for file in files],
            commit_message=f"Model saved by stclip {stclip.__version__}",
        )
    except UserError:
        raise
    except Exception as error:  # of the network, of the Hub
        raise UserError(
            f"{name}: cannot be uploaded to {hub.constants.ENDPOINT} ({_short(error)}); log in "
            "with `hf auth login` or HF_TOKEN, with a token that may write there"
        ) from error
    return str(address)


def huggingface_hub(needs: str) -> Any:
    """The package of the extra ``hub``.

    Args:
        needs: what needs it, the beginning of the error.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise UserError(f"{needs} needs the package huggingface_hub: {EXTRA}") from error


def _explained(hub: Any, name: str, file: str, error: Exception) -> UserError:
    """What to tell of a file that did not come."""
    errors, endpoint = hub.errors, hub.constants.ENDPOINT
    if isinstance(error, errors.GatedRepoError):
        found = f"{endpoint} gives it to those only who asked for it; ask on its page, and log in "
        found += "with `hf auth login` or HF_TOKEN"
    elif isinstance(error, errors.RepositoryNotFoundError):
        found = f"there is no such file or folder, and no such model on {endpoint}; if it is "
        found += "private, log in with `hf auth login` or HF_TOKEN"
    elif isinstance(error, errors.RevisionNotFoundError):
        found = f"the model on {endpoint} has no such revision; name a branch, tag or commit"
    elif isinstance(error, errors.OfflineModeIsEnabled):
        found = f"there is no such file or folder, and {file} is not in the cache of "
        found += "huggingface_hub; unset HF_HUB_OFFLINE to fetch it"
    elif isinstance(error, errors.EntryNotFoundError) and not isinstance(
        error, errors.LocalEntryNotFoundError
    ):
        found = f"the model on {endpoint} has no {file}: it was not saved by stclip"
    else:
        found = f"there is no such file or folder, and {file} cannot be fetched from {endpoint} "
        found += f"({_short(error)}); where there is a network, `hf download` fetches it to a "
        found += "folder, which can be named instead"
    return UserError(f"{name}: {found}")


def _short(error: Exception) -> str:
    text = textwrap.shorten(str(error), 200, placeholder=" ...")
    return text or type(error).__name__
