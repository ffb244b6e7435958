import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stclip.benchmark import runs
from stclip.benchmark.runs import LOG, Run, Runner, clock
from stclip.config import save_config
from stclip.errors import UserError

CONFIG = "DATASETS: {TEST: puppet}\nSOLVER: {MAX_ITER: 5}\n"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "split_1.yaml"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture
def training(config, tmp_path):
    return Run("a training", "train_net", config, tmp_path / "train", ("SEED", "4"))


@pytest.fixture
def test(config, tmp_path, training):
    return Run("a test", "test_net", config, tmp_path / "test", ("SEED", "4"), training)


def fill(run, value=50.0):
    """What the tool would leave."""
    if run.tool == "train_net":
        save_config(run.cfg(), run.folder / "config.yaml")
        run.checkpoint().write_bytes(b"")
    else:
        run.results().mkdir(parents=True)
        save_config(run.cfg(), run.results() / "config.yaml")
        (run.results() / "metrics.json").write_text(f'{{"frame_mAP@0.5": {value}}}')


class Tools:
    """Stands in for the tools: notes the calls, and leaves what the runs should leave."""

    def __init__(self, *known):
        self.known, self.calls, self.status = known, [], 0

    def __call__(self, words, output):
        self.calls.append(words[1:])
        folder = Path(words[words.index("OUTPUT_DIR") + 1])
        output.write("first\n10%\r20% \rlast line\n")
        output.flush()
        if not self.status:
            fill(next(run for run in self.known if run.folder == folder))
        return subprocess.Popen([sys.executable, "-c", f"raise SystemExit({self.status})"])


@pytest.fixture
def tools(monkeypatch, training, test):
    stand_in = Tools(training, test)
    monkeypatch.setattr(runs, "start_tool", stand_in)
    return stand_in


def test_command_lines(training, test, config, tmp_path):
    assert training.arguments() == [
        "--config-file", config, "SEED", "4", "OUTPUT_DIR", str(tmp_path / "train"),
    ]  # fmt: skip
    weight = str(tmp_path / "train" / "model_0000005.pth")
    assert test.arguments()[4:] == ["MODEL.WEIGHT", weight, "OUTPUT_DIR", str(tmp_path / "test")]
    assert test.results() == tmp_path / "test" / "inference" / "puppet"
    assert test.cfg().SEED == 4


def test_what_is_finished(training, test):
    assert not training.finished()
    assert not test.finished()
    fill(training)
    assert training.finished()
    fill(test)
    assert test.finished()


def test_a_test_with_another_config_is_not_finished(training, test):
    fill(training)
    fill(test)
    text = (test.results() / "config.yaml").read_text()
    (test.results() / "config.yaml").write_text(text.replace("SEED: 4", "SEED: 5"))
    assert not test.finished()


def test_a_test_of_an_older_checkpoint_is_not_finished(training, test):
    fill(test)
    fill(training)
    later = (test.results() / "metrics.json").stat().st_mtime + 10
    os.utime(training.checkpoint(), (later, later))
    assert not test.finished()


def test_a_training_with_another_config_is_refused(training, tools):
    fill(training)
    path = training.folder / "config.yaml"
    path.write_text(path.read_text().replace("SEED: 4", "SEED: 5"))
    with pytest.raises(UserError, match=r"config\.yaml: .*SEED 5 -> 4.*another output folder"):
        Runner(Path("tools"), [training], stream=io.StringIO()).all()
    assert tools.calls == []


def test_runs_in_order_and_once(training, test, tools):
    stream = io.StringIO()
    Runner(Path("tools"), [training, test], stream=stream).all()
    assert [Path(call[0]).name for call in tools.calls] == ["train_net.py", "test_net.py"]
    lines = stream.getvalue().splitlines()
    assert re.fullmatch(r"\[1/2\] a training: trained in 0:0\d; about .* left", lines[0])
    assert re.fullmatch(r"\[2/2\] a test: 50\.0 mAP in 0:0\d; about 0:00 left", lines[1])
    assert (test.folder / LOG).read_text().endswith("last line\n")

    stream = io.StringIO()
    Runner(Path("tools"), [training, test], stream=stream).all()
    assert len(tools.calls) == 2
    assert stream.getvalue() == "2 of 2 runs are there already\n"


def test_a_begun_training_is_resumed(training, tools):
    save_config(training.cfg(), training.folder / "config.yaml")
    Runner(Path("tools"), [training], show_commands=True, stream=(stream := io.StringIO())).all()
    assert tools.calls[0][-1] == "--resume"
    assert stream.getvalue().startswith("$ python tools/train_net.py --config-file ")


def test_a_failure_shows_the_tools_last_line(training, test, tools):
    tools.status = 2
    with pytest.raises(UserError, match=r"a training: tools/train_net\.py failed: last line \(all"):
        Runner(Path("tools"), [training, test], stream=io.StringIO()).all()
    assert len(tools.calls) == 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (7.4, "0:07"),
        (61, "1:01"),
        (754, "12:34"),
        (3600, "1:00:00"),
        (3599.7, "1:00:00"),
    ],
)
def test_clock(seconds, text):
    assert clock(seconds) == text
