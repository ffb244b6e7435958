import json
import logging
import sys
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

from stclip.engine import events
from stclip.engine.events import EventWriter, setup_logging, watch_loader


def record(iteration: int) -> dict[str, float]:
    return {
        "iteration": iteration,
        "loss": 1.0,
        "loss_action": 1.0,
        "accuracy": 0.5,
        "lr": 0.1,
        "data_time": 0.0,
        "iter_time": 0.1,
        "max_mem": 1.0,
    }


def test_a_resumed_run_drops_what_it_is_about_to_do_again(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path, 0, max_iter=4, log_period=2)
    for iteration in (1, 2, 3):
        writer.iteration(record(iteration))
        if iteration == 2:
            writer.write({"iteration": 2, "val": 0.5})  # done anew after a resume at 2
    writer.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"iteration": 4, "lo')  # cut by the interrupt
    writer = EventWriter(tmp_path, 2, max_iter=4, log_period=2)
    writer.iteration(record(3))
    writer.write({"iteration": 3, "grad_norm": float("inf")})
    writer.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines.pop()) == {"iteration": 3, "grad_norm": None}
    assert [json.loads(line)["iteration"] for line in lines] == [1, 2, 3]
    assert list((tmp_path / "tensorboard").iterdir())


@pytest.mark.parametrize(
    "damage",
    [b"\xff\xfe\x00", b"[" * 100_000, b"3", b'{"iteration": "x", "loss": 1}', b'{"loss": 1}'],
)
def test_damaged_lines_do_not_stop_a_resumed_run(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps(record(iteration)).encode() for iteration in (1, 2, 3)]
    path.write_bytes(b"\n".join([lines[0], damage, *lines[1:]]))  # nor a last line without its end
    writer = EventWriter(tmp_path, 2, max_iter=4, log_period=2)
    writer.iteration(record(3))
    writer.close()
    kept = [json.loads(line)["iteration"] for line in path.read_text().splitlines()]
    assert kept == [1, 2, 3]
    assert "metrics.jsonl: 1 damaged lines are left out" in caplog.text


@pytest.mark.parametrize(("wait", "warnings"), [(0.5, 1), (0.1, 0)])
def test_a_gpu_that_waits_for_data_is_told_once(monkeypatch, caplog, wait, warnings):
    now = 0.0
    monkeypatch.setattr(events.time, "perf_counter", lambda: now)

    def batches():
        nonlocal now
        for number in range(200):
            now += wait if number else 1000.0
            yield number

    seen = []
    for batch in watch_loader(batches(), torch.device("cuda")):
        now += 1 - wait
        seen.append(batch)
    assert seen == list(range(200))
    assert len(caplog.messages) == warnings
    assert all("50 %" in m and "NUM_WORKERS" in m for m in caplog.messages)
    assert watch_loader(seen, torch.device("cpu")) is seen


def test_a_line_beside_a_progress_bar_is_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    setup_logging(None)
    with tqdm(total=3, file=sys.stderr, desc="frames") as bar:
        bar.update()
        logging.getLogger("stclip").info("something to say")
    lines = capsys.readouterr().err.split("\n")
    said = next(line for line in lines if "something to say" in line)
    assert "frames" not in said.rpartition("\r")[2]
