import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stclip.config import save_config
from stclip.errors import UserError
from stclip.puppet.experiment import runs
from stclip.puppet.experiment.runs import LOG, Run, Runner, clock

CONFIG = "DATASETS: {TEST: puppet}\nSOLVER: {MAX_ITER: 5}\n"


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "split_1.yaml"
    path.write_text(CONFIG)
    return str(path)


@pytest.fixture
def training(config, tmp_path):
    return Run("a training", "train", config, tmp_path / "train", ("SEED", "4"))


@pytest.fixture
def test(config, tmp_path, training):
    return Run("a test", "test", config, tmp_path / "test", ("SEED", "4"), training)


def fill(run, value=50.0):
    """What the command would leave."""
    if run.command == "train":
        save_config(run.cfg(), run.folder / "config.yaml")
        run.checkpoint().write_bytes(b"")
    else:
        run.results().mkdir(parents=True)
        save_config(run.cfg(), run.results() / "config.yaml")
        (run.results() / "metrics.json").write_text(f'{{"frame_mAP@0.5": {value}}}')


class Calls:
    """Stands in for the commands: notes the calls, and leaves what the runs should leave."""

    def __init__(self, *known):
        self.known, self.calls, self.status = known, [], 0

    def __call__(self, words, output, jobs):
        self.calls.append(words[1:])
        folder = Path(words[words.index("OUTPUT_DIR") + 1])
        output.write("first\n10%\r20% \rlast line\n")
        output.flush()
        if not self.status:
            fill(next(run for run in self.known if run.folder == folder))
        return subprocess.Popen([sys.executable, "-c", f"raise SystemExit({self.status})"])


@pytest.fixture
def calls(monkeypatch, training, test):
    stand_in = Calls(training, test)
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


def test_a_training_with_another_config_is_refused(training, calls):
    fill(training)
    path = training.folder / "config.yaml"
    path.write_text(path.read_text().replace("SEED: 4", "SEED: 5"))
    with pytest.raises(UserError, match=r"config\.yaml: .*SEED 5 -> 4.*another output folder"):
        Runner([training], stream=io.StringIO()).all()
    assert calls.calls == []


def test_runs_in_order_and_once(training, test, calls):
    stream = io.StringIO()
    Runner([training, test], stream=stream).all()
    assert [call[:3] for call in calls.calls] == [
        ["-m", "stclip", "train"],
        ["-m", "stclip", "test"],
    ]
    lines = stream.getvalue().splitlines()
    assert re.fullmatch(r"\[1/2\] a training: trained in 0:0\d; about .* left", lines[0])
    assert re.fullmatch(r"\[2/2\] a test: 50\.0 mAP in 0:0\d; about 0:00 left", lines[1])
    assert (test.folder / LOG).read_text().endswith("last line\n")

    stream = io.StringIO()
    Runner([training, test], stream=stream).all()
    assert len(calls.calls) == 2
    assert stream.getvalue() == "2 of 2 runs are there already\n"


def test_a_begun_training_is_resumed(training, calls):
    save_config(training.cfg(), training.folder / "config.yaml")
    Runner([training], show_commands=True, stream=(stream := io.StringIO())).all()
    assert calls.calls[0][-1] == "--resume"
    assert stream.getvalue().startswith("$ stclip train --config-file ")


def test_a_failure_shows_the_last_line_printed(training, test, calls):
    calls.status = 2
    with pytest.raises(UserError, match=r"a training: stclip train failed: last line \(all"):
        Runner([training, test], stream=io.StringIO()).all()
    assert len(calls.calls) == 1


class Held:
    """Stands in for the commands: each process lives a moment, to overlap with others."""

    def __init__(self, *known):
        self.known, self.live, self.together = known, [], []

    def __call__(self, words, output, jobs):
        run = next(r for r in self.known if str(r.folder) == words[words.index("OUTPUT_DIR") + 1])
        self.live = [(other, process) for other, process in self.live if process.poll() is None]
        self.together.append([*(other.title for other, _ in self.live), run.title])
        fill(run)
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.6)"])
        self.live.append((run, process))
        return process


@pytest.mark.slow
def test_jobs_run_together_but_not_before_what_they_need(monkeypatch, config, tmp_path):
    a, b, c = (
        Run(name, "train", config, tmp_path / name, ("SEED", str(seed)))
        for seed, name in enumerate("abc")
    )
    tests = [
        Run(f"test {run.title}", "test", config, tmp_path / f"test_{run.title}", run.pairs, run)
        for run in (a, b, c)
    ]
    order = [a, tests[0], b, tests[1], c, tests[2]]
    monkeypatch.setattr(runs, "start_tool", stand_in := Held(*order))
    Runner(order, jobs=2, stream=io.StringIO()).all()
    assert all(run.finished() for run in order)
    assert max(map(len, stand_in.together)) == 2
    assert stand_in.together[:2] == [["a"], ["a", "b"]]  # a's test has to wait for a
    for together in stand_in.together:
        assert not {f"test {name}" for name in together} & set(together)


def test_a_failure_stops_what_runs_beside_it(monkeypatch, config, tmp_path):
    long, short = (Run(n, "train", config, tmp_path / n) for n in ("long", "short"))
    processes = {}

    def start(words, output, jobs):
        name = Path(words[words.index("OUTPUT_DIR") + 1]).name
        output.write("too bad\n")
        code = "import time; time.sleep(60)" if name == "long" else "raise SystemExit(2)"
        processes[name] = subprocess.Popen([sys.executable, "-c", code])
        return processes[name]

    monkeypatch.setattr(runs, "start_tool", start)
    with pytest.raises(UserError, match=r"short: .* failed: too bad"):
        Runner([long, short], jobs=2, stream=io.StringIO()).all()
    assert processes["long"].poll() is not None


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


def test_results_of_a_file_in_the_annotations_format_lie_under_its_formats_name(config, tmp_path):
    pairs = ("DATASETS.TEST", "data/own/test.json")
    run = Run("a test", "test", config, tmp_path / "test", pairs)
    assert run.results() == tmp_path / "test/inference/annotations"
