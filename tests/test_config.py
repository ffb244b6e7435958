import re
from pathlib import Path

import pytest

from stclip.config import differences, get_cfg_defaults, load_config, save_config
from stclip.config.load import flatten
from stclip.errors import UserError
from tests.helpers import REPOSITORY


def test_differences() -> None:
    before = load_config(None, ["SEED", "5", "SOLVER.STEPS", "[3]"])
    after = load_config(None, ["SEED", "5", "SOLVER.STEPS", "[4]"])
    assert differences(before, before.dump()) == []
    assert differences(after, before.dump()) == ["SOLVER.STEPS (3,) -> (4,)"]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_base_then_file_then_pairs(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "SEED: 5\nSOLVER:\n  MAX_ITER: 7\n  BASE_LR: 1e-3\n")
    child = write(tmp_path / "child.yaml", "_BASE_: base.yaml\nSOLVER:\n  MAX_ITER: 9\n")
    cfg = load_config(child, ["SOLVER.STEPS", "[3, 5]", "OUTPUT_DIR", "2024"])
    assert (cfg.SEED, cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR) == (5, 9, 1e-3)
    assert cfg.SOLVER.STEPS == (3, 5)
    assert cfg.OUTPUT_DIR == "2024"
    assert cfg.is_frozen()


def test_saved_config_loads_to_the_same_values(tmp_path: Path) -> None:
    cfg = load_config(None, ["SOLVER.BASE_LR", "1", "TEST.SINGLE_ACTION", "true"])
    save_config(cfg, tmp_path / "config.yaml")
    assert dict(flatten(load_config(tmp_path / "config.yaml"))) == dict(flatten(cfg))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SOLVER:\n  MAXITER: 3\n", "SOLVER.MAX_ITER"),
        ("DATASETS:\n  TEST_LABEL: x\n", "did you mean TEST_LABEL"),
        ("NOPE: {A: 1}\n", "unknown key NOPE"),
        ("SOLVER: 3\n", "is a group"),
        ("SOLVER:\n  MAX_ITER: many\n", "int expected, found str 'many'"),
        ("SOLVER:\n  MAX_ITER: 1.5\n", "int expected"),
        ("SOLVER:\n  MAX_ITER: true\n", "int expected"),
        ("SOLVER:\n  STEPS: [a]\n", "a list of ints expected"),
        ("SOLVER:\n  SCHEDULE: poly\n", "step, cosine"),
        ("SOLVER:\n  VIDEOS_PER_BATCH: 0\n", "above 0"),
        ("MODEL:\n  NAME: videoclip\n", "MODEL.NAME: one of stclip, frame, crop, frame_crop"),
        ("MODEL: {TEMPORAL: {ENABLED: 1}}\n", "MODEL.TEMPORAL.ENABLED: bool expected"),
        ("MODEL: {INTEREST_TOKENS: {TOP_K: -1}}\n", "MODEL.INTEREST_TOKENS.TOP_K"),
        (
            "MODEL: {INTEREST_TOKENS: {ENABLED: true}, PROMPT: {ENABLED: false}}\n",
            "MODEL.INTEREST_TOKENS.ENABLED: with it MODEL.PROMPT.ENABLED True",
        ),
        (
            "MODEL: {INTEREST_TOKENS: {ENABLED: true}, PERSON_TOKENS: {ENABLED: false}}\n",
            "MODEL.INTEREST_TOKENS.ENABLED: with it MODEL.PERSON_TOKENS.ENABLED True",
        ),
        ("TEST:\n  IOU_THRESHOLDS: [0.5, 2]\n", "TEST.IOU_THRESHOLDS"),
        ("- a\n", "a mapping"),
        ("a: [1\n", "not valid yaml"),
        ("_BASE_: bad.yaml\n", "leads back"),
        ("_BASE_: absent.yaml\n", "absent.yaml"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "bad.yaml", text)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


def test_pairs_must_be_pairs() -> None:
    with pytest.raises(UserError, match="KEY VALUE pairs"):
        load_config(None, ["SEED"])


def test_every_key_is_read_somewhere() -> None:
    """A key that no code reads would be a promise that nobody keeps."""
    folders = ("stclip", "tools")
    files = [p for folder in folders for p in (REPOSITORY / folder).rglob("*.py")]
    source = "\n".join(p.read_text() for p in files if "config" not in p.parts)
    unread = [
        key
        for key, _ in flatten(get_cfg_defaults())
        if not re.search(rf"\b{re.escape(key)}\b|\w\.{key.rpartition('.')[2]}\b", source)
    ]
    assert unread == []


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").rglob("*.yaml")), ids=str)
def test_shipped_configs_load(path: Path) -> None:
    load_config(path)
