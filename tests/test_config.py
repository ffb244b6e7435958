import logging
import re
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stclip.config import (
    differences,
    get_cfg_defaults,
    load_config,
    reference_keys,
    save_config,
    saved_config,
    warn_scales,
)
from stclip.config.load import flatten
from stclip.errors import UserError
from tests.helpers import REPOSITORY


def test_differences() -> None:
    before = load_config(None, ["SEED", "5", "SOLVER.STEPS", "[3]"])
    after = load_config(None, ["SEED", "5", "SOLVER.STEPS", "[4]"])
    assert differences(before, before.dump()) == []
    assert differences(after, before.dump()) == ["SOLVER.STEPS (3,) -> (4,)"]


# What somebody may hand on as a config, or hide in a checkpoint's.
HOSTILE = (
    "A: &a [1]\n" + "".join(f"{b}: &{b} [{f'*{a}, ' * 10}]\n" for a, b in pairwise("abcdefg")),
    "SEED: &a {SEED: *a}\n",
    "SEED: " + "[" * 50 + "]" * 50 + "\n",
    "SEED: !!python/object/apply:os.mkdir [made]\n",
    "OUTPUT_DIR: !!python/name:os.system\n",
    "SEED: " + "9" * 5_000 + "\n",
    "SEED: 0x" + "f" * 5_000 + "\n",
    "SEED: [0x" + "f" * 5_000 + "]\n",
    "SEED: 18446744073709551616\n",
    "SOLVER: {MAX_ITER: 9223372036854775808}\n",
    "SOLVER: {BASE_LR: 1" + "0" * 400 + "}\n",
    "SOLVER: {BASE_LR: '1" + "0" * 400 + "'}\n",
    "SOLVER: {STEPS: [1" + "0" * 400 + "]}\n",
    "TEST: {IOU_THRESHOLDS: [1" + "0" * 400 + "]}\n",
    'OUTPUT_DIR: "\\ud800"\n',
    'OUTPUT_DIR: "a\\0b"\n',
    "OUTPUT_DIR: 2024-99-99\n",
    "OUTPUT_DIR: !!timestamp x\n",
    "OUTPUT_DIR: !!set {a, b}\n",
    "OUTPUT_DIR: !!binary YQ==\n",
    "? [a]\n: 1\n",
    "OUTPUT_DIR: a\n--- \nOUTPUT_DIR: b\n",
    "OUTPUT_DIR: " + "a" * 300_000 + "\n",
    "\x00",
    "- a\n",
)  # fmt: skip


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


def test_several_files_of_which_the_later_ones_win(tmp_path: Path) -> None:
    first = write(tmp_path / "first.yaml", "SEED: 5\nSOLVER:\n  MAX_ITER: 7\n")
    second = write(tmp_path / "second.yaml", "SOLVER:\n  MAX_ITER: 9\n")
    cfg = load_config(f"{first},{second}", ["TEST.MAX_PERSONS", "4"])
    assert (cfg.SEED, cfg.SOLVER.MAX_ITER, cfg.TEST.MAX_PERSONS) == (5, 9, 4)
    both = write(tmp_path / "first.yaml,b.yaml", "SEED: 6\n")
    assert load_config(both).SEED == 6
    with pytest.raises(UserError, match=r"third.yaml: there is no such config file"):
        load_config(f"{first},{tmp_path}/third.yaml")


def test_a_base_that_comes_with_stclip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    child = write(tmp_path / "child.yaml", "_BASE_: configs/jhmdb/split_1.yaml\n")
    assert load_config(child).TEST.MAX_PERSONS == 3
    (tmp_path / "configs/jhmdb").mkdir(parents=True)
    write(tmp_path / "configs/jhmdb/split_1.yaml", "SEED: 5\n")
    assert load_config(child).SEED == 5  # beside it


def test_saved_config_loads_to_the_same_values(tmp_path: Path) -> None:
    cfg = load_config(None, ["SOLVER.BASE_LR", "1", "TEST.SINGLE_ACTION", "true"])
    save_config(cfg, tmp_path / "config.yaml")
    assert dict(flatten(load_config(tmp_path / "config.yaml"))) == dict(flatten(cfg))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SOLVER:\n  MAXITER: 3\n", "SOLVER.MAX_ITER"),
        ("DATASETS:\n  TEST_LABEL: x\n", "DATASETS.TEST_LABEL (did you mean TEST_LABEL"),
        ("NOPE: {A: 1}\n", "unknown key NOPE"),
        ("SOLVER: 3\n", "is a group"),
        ("SOLVER:\n  MAX_ITER: many\n", "int expected, found str 'many'"),
        ("SOLVER:\n  MAX_ITER: 1.5\n", "int expected"),
        ("SOLVER:\n  MAX_ITER: true\n", "int expected"),
        ("SOLVER:\n  STEPS: [a]\n", "a list of ints expected"),
        ("SOLVER:\n  SCHEDULE: poly\n", "step, cosine"),
        ("SOLVER:\n  VIDEOS_PER_BATCH: 0\n", "above 0"),
        ("TEST: {VOTING: tracks}\n", "TEST.VOTING: one of none, video, track expected"),
        ("TEST: {VOTING_WINDOW: 0}\n", "TEST.VOTING_WINDOW: a number above 0"),
        ("MODEL:\n  NAME: videoclip\n", "MODEL.NAME: one of stclip, frame, crop, frame_crop"),
        ("MODEL: {HEAD: {MARKED: red}}\n", "MODEL.HEAD.MARKED: one of blur, mask expected"),
        ("MODEL: {HEAD: {MARKED_WEIGHT: -1}}\n", "MODEL.HEAD.MARKED_WEIGHT: a number not below 0"),
        ("DATALOADER: {RESIZE: device, STORE: x}\n", "DATALOADER.STORE: '' expected with"),
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
        ("_BASE_: absent.yaml\n", "absent.yaml: there is no such config file; there are "),
        ("_BASE_: [a]\n", "_BASE_: the name of a file expected"),
        ("SEED: 1\nSEED: 2\n", "bad.yaml: line 2: the key SEED was set in line 1 already"),
        ("TEST: {BOXES: detected, BOXES: detected}\n", "line 1: the key BOXES was set in line 1"),
        ("SEED: 1\nTEST:\n  BOX_THRESH: 0\nTEST: {}\n", "line 4: the key TEST was set in line 2"),
        ("SOLVER.GAMMA: 1\nSOLVER: {GAMMA: 1}\n", "is set twice; remove one of them"),
        (
            "SOLVER: {MAX_PERSONS: 3}\nMODEL: {ROI_ACTION_HEAD: {PROPOSAL_PER_CLIP: 3}}\n",
            "SOLVER.MAX_PERSONS and MODEL.ROI_ACTION_HEAD.PROPOSAL_PER_CLIP set the same key",
        ),
        ("DATASETS: {TRAIN: [jhmdb_train, ucf24]}\n", "DATASETS.TRAIN: one dataset expected"),
        ("DATASETS: {TEST: ()}\n", "DATASETS.TEST: one dataset expected, found ()"),
        ("SOLVER: {WARMUP_METHOD: constant}\n", "SOLVER.WARMUP_METHOD: linear expected, found"),
        ("MODEL: {ROI_ACTION_HEAD: {FOCAL_LOSS: {ALPHA: 0.25}}}\n", "-1 expected, found 0.25"),
        ("SOLVER: {SCHEDULER: poly}\n", "SOLVER.SCHEDULE: one of step, cosine expected"),
        ("SEED: " + "[" * 2_000 + "\n", "nested too deeply"),
        *((hostile, "bad.yaml: ") for hostile in HOSTILE),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path / "bad.yaml", text)
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: f"{text[:25]!r}")
def test_a_saved_config_of_a_stranger(text: str) -> None:
    cfg = get_cfg_defaults()
    with pytest.raises(UserError, match=r"^the config kept in a\.pth: ") as caught:
        warn_scales(cfg, text, "a.pth")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_damaged_config_of_another_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"SEED: \xff\xfe\n")
    with pytest.raises(UserError, match=r"config\.yaml: not valid yaml: "):
        differences(get_cfg_defaults(), tmp_path / "config.yaml")


def test_a_saved_config_that_is_no_text() -> None:
    with pytest.raises(UserError, match="yaml text expected, found ndarray"):
        differences(get_cfg_defaults(), np.zeros(3))  # type: ignore[arg-type]


def test_yaml_that_is_legal_stays_so(tmp_path: Path) -> None:
    """Aliases, merged mappings, text with a byte order mark."""
    text = "\ufeffSOLVER: &a {MAX_ITER: &n 7}\nTEST: {MAX_PERSONS: *n}\n"
    cfg = load_config(write(tmp_path / "a.yaml", text))
    assert (cfg.SOLVER.MAX_ITER, cfg.TEST.MAX_PERSONS) == (7, 7)
    text = "SOLVER: {<<: {MAX_ITER: 7, SCHEDULE: cosine}, MAX_ITER: 8}\n"
    cfg = load_config(write(tmp_path / "b.yaml", text))
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.SCHEDULE) == (8, "cosine")
    assert load_config(None, ["SEED", str(2**64 - 1)]).SEED == 2**64 - 1


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["SEED", str(2**64)], "command line: SEED: a whole number below 2^64 expected"),
        (["SEED", "-1"], "SEED: a number not below 0 expected"),
        (["MODEL.NAME", "x" * 5_000], "MODEL.NAME: one of stclip, frame"),
        (["SEED", "9" * 5_000], "SEED: int expected, found str '9999"),
        (["SOLVER.STEPS", "(" * 5_000], "SOLVER.STEPS: a list of ints expected, found ('(((("),
        (["OUTPUT_DIR", "caf\udce9"], "OUTPUT_DIR: text in Unicode"),
        (["A" * 100_000, "1"], "unknown key AAAA"),
    ],
)  # fmt: skip
def test_pairs_that_are_wrong(pairs: list[str], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        load_config(None, pairs)
    assert len(str(caught.value)) < 300


def test_all_unknown_keys_are_named_at_once(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", "SOLVER: {MAXITER: 3}\n")
    text = "_BASE_: base.yaml\nIA_STRUCTURE: {ACTIVE: true}\nTESTS: {}\nMODEL: {WIGHT: a.pth}\n"
    child = write(tmp_path / "child.yaml", text)
    with pytest.raises(UserError) as caught:
        load_config(child, ["SEDE", "3", "SOLVER.MAX_ITER", "many"])
    error = str(caught.value)
    assert f"{tmp_path}/base.yaml: unknown key SOLVER.MAXITER (did you mean SOLVER.MAX_" in error
    assert f"; {child}: 3 keys do not exist: unknown key IA_STRUCTURE, unknown key TESTS" in error
    assert "unknown key MODEL.WIGHT (did you mean MODEL.WEIGHT" in error
    assert "; command line: unknown key SEDE (did you mean SEED" in error
    many = write(tmp_path / "many.yaml", "".join(f"KEY_{n}: 1\n" for n in range(500)))
    with pytest.raises(UserError, match=r"500 keys do not exist: .* KEY_0, .*, and 480 more; "):
        load_config(many)


@pytest.mark.parametrize(
    ("in_file", "pairs", "voting"),
    [
        ("", "", "none"),
        ("", "SINGLE_ACTION True", "video"),
        ("", "VOTING video", "video"),
        ("", "VOTING track SINGLE_ACTION False", "track"),
        ("SINGLE_ACTION: true", "", "video"),
        ("SINGLE_ACTION: true", "VOTING track", "track"),  # what comes later wins
        ("SINGLE_ACTION: true", "VOTING none", "none"),
        ("VOTING: track", "SINGLE_ACTION True", "video"),
        ("VOTING: track", "SINGLE_ACTION False", "track"),
        ("VOTING: video", "SINGLE_ACTION False", "none"),
        ("SINGLE_ACTION: false, VOTING: none", "SINGLE_ACTION True", "video"),
    ],
)
def test_two_names_of_voting(tmp_path: Path, in_file: str, pairs: str, voting: str) -> None:
    file = write(tmp_path / "a.yaml", f"TEST: {{{in_file}}}\n")
    words = re.sub(r"\b(?=SINGLE|VOTING)", "TEST.", pairs).split()
    cfg = load_config(file, words)
    assert (voting, voting == "video") == (cfg.TEST.VOTING, cfg.TEST.SINGLE_ACTION)
    assert saved_config(cfg.dump()).TEST == cfg.TEST


@pytest.mark.parametrize("pairs", ["True track", "True none", "False video"])
def test_names_of_voting_that_contradict(pairs: str) -> None:
    single, voting = pairs.split()
    with pytest.raises(UserError, match=rf"command line: TEST.SINGLE_ACTION {single} contradicts"):
        load_config(None, ["TEST.SINGLE_ACTION", single, "TEST.VOTING", voting])


def test_keys_that_are_gone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(reference_keys.REMOVED, "TEST.VOTE", "set TEST.SINGLE_ACTION")
    monkeypatch.setitem(reference_keys.RENAMED, "TEST.BOX", "TEST.BOXES")
    with pytest.raises(UserError, match=r"TEST\.VOTE \(was removed: set TEST\.SINGLE_ACTION\)"):
        load_config(None, ["TEST.VOTE", "True"])
    saved = "TEST: {VOTE: true, BOX: ground_truth, WHATEVER: 1}\n"
    assert saved_config(saved).TEST.BOXES == "ground_truth"  # an old run's stays readable
    assert load_config(None, ["TEST.BOX", "ground_truth"]).TEST.BOXES == "ground_truth"


# The released configuration: every key, with its value.
RELEASED = """
MODEL:
  ROI_ACTION_HEAD:
    FEATURE_EXTRACTOR: "2MLPFeatureExtractor"
    PROPOSAL_PER_CLIP: 10
    DROPOUT_RATE: 0.2
    PREFIX_LEN: 16
    POSTFIX_LEN: 16
INPUT: {FRAME_NUM: 32, FRAME_SAMPLE_RATE: 1, TAU: 4, ALPHA: 1, COLOR_JITTER: True}
DATASETS:
  TRAIN: ("jhmdb_train",)
  TEST: ("jhmdb_val",)
ALL_LABEL: "data/jhmdb/annotations/all_label.txt"
TRAIN_LABEL: "benchmarks/label_split_1/train_label.txt"
TEST_LABEL: "benchmarks/label_split_1/test_label.txt"
TRAIN_VIDEO: "benchmarks/label_split_1/train_video.txt"
TEST_VIDEO: "benchmarks/label_split_1/test_video.txt"
DATALOADER: {NUM_WORKERS: 8, SIZE_DIVISIBILITY: 16}
SOLVER:
  BASE_LR: 0.00025
  WARMUP_FACTOR: 0.25
  BIAS_LR_FACTOR: 2
  IA_LR_FACTOR: 10.0
  WEIGHT_DECAY: 1e-7
  STEPS: (20000, 25000)
  WARMUP_ITERS: 800
  MAX_ITER: 3000
  CHECKPOINT_PERIOD: 3000
  EVAL_PERIOD: 25000
  VIDEOS_PER_BATCH: 8
TEST: {BOX_THRESH: 0., ACTION_THRESH: 0., VIDEOS_PER_BATCH: 8}
OUTPUT_DIR: "data/output/dense_serial_debug"
"""


def test_the_released_config_is_taken_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "STCLIP.yaml", RELEASED)
    with caplog.at_level(logging.WARNING):
        cfg = load_config(path)
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == ("jhmdb", "jhmdb")
    solver = cfg.SOLVER
    assert (solver.BASE_LR, solver.STEPS, solver.WEIGHT_DECAY) == (2.5e-4, (20000, 25000), 1e-7)
    assert (solver.MAX_ITER, solver.EVAL_PERIOD, solver.MAX_PERSONS) == (3000, 25000, 10)
    assert cfg.TRAIN_VIDEO == "benchmarks/label_split_1/train_video.txt"
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith(f"{path}: 12 keys of the published implementation have no effect")
    for key in ("MODEL.ROI_ACTION_HEAD.PREFIX_LEN", "INPUT.TAU", "SOLVER.BIAS_LR_FACTOR"):
        assert key in message
    caplog.clear()
    monkeypatch.setenv("RANK", "1")
    assert dict(flatten(load_config(path))) == dict(flatten(cfg))
    assert not caplog.records  # several processes, one warning


@pytest.mark.parametrize(
    ("key", "value", "ours", "expected"),
    [
        ("MODEL.ROI_ACTION_HEAD.PROPOSAL_PER_CLIP", "4", "SOLVER.MAX_PERSONS", 4),
        ("MODEL.ROI_ACTION_HEAD.FOCAL_LOSS.GAMMA", "1.5", "SOLVER.FOCAL_GAMMA", 1.5),
        ("SOLVER.SCHEDULER", "warmup_multi_step", "SOLVER.SCHEDULE", "step"),
        ("SOLVER.SCHEDULER", "half_period_cosine", "SOLVER.SCHEDULE", "cosine"),
        ("DATASETS.TRAIN", "('jhmdb_train',)", "DATASETS.TRAIN", "jhmdb"),
        ("DATASETS.TEST", "['jhmdb_val']", "DATASETS.TEST", "jhmdb"),
        ("DATASETS.TEST", "('puppet',)", "DATASETS.TEST", "puppet"),
        ("DATASETS.TEST", "jhmdb_val", "DATASETS.TEST", "jhmdb"),
        ("SOLVER.WARMUP_METHOD", "linear", "SOLVER.WARMUP_ON", True),
        ("MODEL.ROI_ACTION_HEAD.FOCAL_LOSS.ALPHA", "-1.", "SOLVER.FOCAL_GAMMA", 2.0),
    ],
)
def test_keys_of_the_published_implementation(
    tmp_path: Path, key: str, value: str, ours: str, expected: object
) -> None:
    """On the command line, and in a yaml file."""
    *groups, leaf = key.split(".")
    lines = [f"{'  ' * depth}{group}:\n" for depth, group in enumerate(groups)]
    lines.append(f"{'  ' * len(groups)}{leaf}: {value}\n")
    file = write(tmp_path / "a.yaml", "".join(lines))
    for cfg in (load_config(None, [key, value]), load_config(file)):
        assert dict(flatten(cfg))[ours] == expected


YAML = [
    *(
        "!!int ",
        "!!float ",
        "!!timestamp ",
        "!!set ",
        "!!omap ",
        "!!binary ",
        "!!str ",
        "&a ",
        "*a ",
    ),
    *(
        "[",
        "]",
        "{",
        "}",
        ": ",
        ", ",
        "- ",
        "\n",
        "\n  ",
        "? ",
        "> ",
        "<<: ",
        "---\n",
        "#",
        "'",
        '"',
    ),
    *("SEED", "SOLVER", "TEST", "BOXES", "_BASE_", "INPUT", "DATASETS.TRAIN", "1", "-1", "1e400"),
    *("a", "\\ud800", "0x", "1:30", "~", "%YAML 9.9\n", "(", ")", "nan", "2024-13-01"),
]
# A few values of the released config changed, or yaml put together at random.
TEXTS = st.one_of(
    st.lists(st.tuples(st.integers(0, len(RELEASED) - 1), st.characters()), max_size=6).map(
        lambda changes: "".join(
            dict(changes).get(place, letter) for place, letter in enumerate(RELEASED)
        )
    ),
    st.lists(st.sampled_from(YAML), max_size=14).map("".join),
)


@settings(max_examples=100)
@given(TEXTS)
def test_any_text_is_a_config_or_an_error_of_one_line(text: str) -> None:
    errors = []
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.yaml"
        path.write_text(text, encoding="utf-8", errors="replace")
        for read in (lambda: load_config(path), lambda: saved_config(text)):
            try:
                read().dump()
            except UserError as error:
                errors.append(str(error))
    assert all("\n" not in error and len(error) < 2_000 for error in errors), errors


def test_the_page_for_those_who_move_over_names_the_keys() -> None:
    page = (REPOSITORY / "GETTING_STARTED.md").read_text()
    page = page.split("## From the published implementation")[1].split("\n## ")[0]
    named = [*reference_keys.RENAMED, *reference_keys.RENAMED.values(), *reference_keys.FIXED]
    named += [key for key in reference_keys.WITHOUT_EFFECT if "ROI_ACTION_HEAD" not in key]
    assert [key for key in named if key.removesuffix(".*").split(".")[-1] not in page] == []


def test_templates(tmp_path: Path) -> None:
    def templates(text: str) -> tuple[str, ...]:
        return load_config(None, ["MODEL.TEMPLATES", text]).MODEL.TEMPLATES

    assert templates("") == ()
    assert templates("{}") == ("{}",)
    assert templates("['a {}', '{} b', 'a {}']") == ("a {}", "{} b")
    actions = templates("action")
    assert len(actions) == 16
    assert templates("['action', 'a {}']") == (*actions, "a {}")
    (tmp_path / "a.yaml").write_text("MODEL: {TEMPLATES: ['a {}', '{}, b']}")
    cfg = load_config(tmp_path / "a.yaml")
    assert cfg.MODEL.TEMPLATES == ("a {}", "{}, b")
    save_config(cfg, tmp_path / "b.yaml")
    assert load_config(tmp_path / "b.yaml") == cfg
    for wrong in ("a", "actions", "{} {}", "[3]", "['a {}', 'b']", "{0}"):
        with pytest.raises(UserError, match=r"MODEL\.TEMPLATES: texts with one {} .* or action, "):
            templates(wrong)


def test_pairs_must_be_pairs() -> None:
    with pytest.raises(UserError, match="KEY VALUE pairs"):
        load_config(None, ["SEED"])


def test_every_key_is_read_somewhere() -> None:
    """A key that no code reads would be a promise that nobody keeps."""
    folders = ("stclip", "tools")
    files = [p for folder in folders for p in (REPOSITORY / folder).rglob("*.py")]
    source = "\n".join(p.read_text() for p in files if "config" not in p.parts)
    attributes = set(re.findall(r"(?:(?<=\w\.)|(?<=\w\[\"))[A-Z][A-Z_0-9]*\b", source))
    words = set(re.findall(r"\b[A-Z][A-Z_0-9]*\b", source))
    keys = [key for key, _ in flatten(get_cfg_defaults())]
    unread = {key for key in keys if key.rpartition(".")[2] not in attributes}
    assert {key for key in unread if "." in key or key not in words} == set()


@pytest.mark.parametrize("path", sorted((REPOSITORY / "configs").rglob("*.yaml")), ids=str)
def test_shipped_configs_load(path: Path) -> None:
    load_config(path)


@pytest.mark.parametrize(
    ("file", "pairs"),
    [
        *(
            (file, "MODEL.TEMPORAL.INIT_STD 0.01 SOLVER.SCHEDULE cosine SOLVER.MAX_ITER 400")
            for file in ("puppet/split_1.yaml", "puppet/multi.yaml", "puppet/xclip_split_1.yaml")
        ),
        ("puppet/multi_its.yaml", "MODEL.INTEREST_TOKENS.INCLUDE_PERSON True"),
        ("ava/split_1.yaml", "MODEL.INTEREST_TOKENS.INCLUDE_PERSON False"),
        ("ava/split_1.yaml", "SOLVER.STEPS (20000,25000)"),
        ("jhmdb/split_1.yaml", "MODEL.TEMPORAL.INIT_STD 1.0 SOLVER.STEPS (20000,25000)"),
        ("ucf24/xclip_split_1.yaml", "MODEL.XCLIP.UNIT video TEST.SINGLE_ACTION True"),
        ("ucf24/xclip_window_split_1.yaml", "MODEL.XCLIP.UNIT window TEST.SINGLE_ACTION True"),
    ],
)  # fmt: skip
def test_what_shipped_configs_say(file: str, pairs: str) -> None:
    """Published numbers stand on these values, whatever the defaults are."""
    path = REPOSITORY / "configs" / file
    assert load_config(path) == load_config(path, pairs.split())


def test_a_start_that_weights_overwrite_is_no_other_scale(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pairs = ["MODEL.TEMPORAL.INIT_STD", "0.01", "MODEL.TEMPORAL.STRIDE", "2"]
    warn_scales(load_config(None, pairs), load_config().dump(), "a.pth")
    (record,) = caplog.records
    assert "MODEL.TEMPORAL.STRIDE 1 -> 2" in record.getMessage()
