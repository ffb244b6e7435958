"""Training on several machines, each an agent of torchrun, and the scripts for Slurm."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from stclip.engine import distributed
from stclip.engine.checkpoint import read_checkpoint
from stclip.errors import UserError
from tests.commands.test_train import losses, train
from tests.footage.make import drawn_frame, write_film
from tests.helpers import REPOSITORY

SLURM = REPOSITORY / "tools" / "slurm"
LONG = ("SOLVER.MAX_ITER", "6")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_a_worker_that_is_killed_comes_back(case_config: Path, tmp_path: Path) -> None:
    """Two machines, here two addresses of one; the weights are those of an undisturbed training."""
    run, endpoint = tmp_path / "two", f"127.0.0.1:{free_port()}"
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"),
        *("--max-restarts=1", "--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}"),
    ]
    words = ["--config-file", str(case_config), "SOLVER.VIDEOS_PER_BATCH", "4", *LONG]
    words += ["SOLVER.CHECKPOINT_PERIOD", "2", "OUTPUT_DIR", str(run), "--resume"]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }  # fmt: skip
    agents = [
        subprocess.Popen(
            [*command, f"--local-addr=127.0.0.{n}", "-m", "stclip", "train", *words],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for n in (1, 2)
    ]  # fmt: skip
    try:
        while not (run / "model_0000002.pth").exists():
            assert [agent.poll() for agent in agents] == [None, None]
            time.sleep(0.02)
        children = Path(f"/proc/{agents[1].pid}/task/{agents[1].pid}/children").read_text()
        os.kill(int(children.split()[0]), signal.SIGKILL)
        texts = [agent.communicate(timeout=240)[0] for agent in agents]
    finally:
        for agent in agents:
            agent.terminate()
    assert [agent.returncode for agent in agents] == [0, 0], texts
    assert "".join(texts).count("continuing ") == 1
    train(case_config, *LONG, "OUTPUT_DIR", str(tmp_path / "one"))
    assert losses(run) == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    two, one = (
        read_checkpoint(path / "model_0000006.pth").model for path in (run, tmp_path / "one")
    )
    for name in one:
        torch.testing.assert_close(two[name], one[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("shared", "machines", "restarts", "fails"),
    [("True", "2", "3", True), ("True", "2", "0", False), ("False", "2", "3", False)],
)
def test_restarts_that_would_wait_in_vain_are_refused(
    monkeypatch: pytest.MonkeyPatch, shared: str, machines: str, restarts: str, fails: bool
) -> None:
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", shared)
    monkeypatch.setenv("GROUP_WORLD_SIZE", machines)
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", restarts)
    if fails:
        with pytest.raises(UserError, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
            distributed._store_of_this_start()
    else:
        assert distributed._store_of_this_start() == {}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that stand for Slurm's; what they were called with is in ``calls``."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in {
        "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
        "scontrol": f'echo "scontrol $*" >> {tmp_path}/calls; [ "$1" != show ] || echo localhost',
        "scancel": f'echo "scancel $*" >> {tmp_path}/calls; kill -TERM "$(cat {tmp_path}/step)"',
        "program": f'printf "%s\\n" "$@" > {tmp_path}/program.$SLURM_ARRAY_TASK_ID',
        "long": f"echo $$ > {tmp_path}/step; exec sleep 60",
    }.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    for name, value in {"ID": "4", "MIN": "3", "MAX": "4", "COUNT": "2"}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    (tmp_path / "videos.txt").write_text("a.mp4\n\nb c.mp4\nd.mp4\n")
    return tmp_path


def script(name: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        ["bash", str(SLURM / name), *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("shares", "videos"), [("", ["a.mp4", "b c.mp4", "d.mp4"]), ("1", ["b c.mp4"])]
)
def test_a_task_takes_what_is_free_or_its_share(
    slurm: Path, monkeypatch: pytest.MonkeyPatch, shares: str, videos: list[str]
) -> None:
    monkeypatch.setenv("STCLIP", "program")
    monkeypatch.setenv("SHARES", shares)
    job = script("detect.sh", slurm / "videos.txt", "--actions", "walk", "fall down")
    assert job.communicate(timeout=60)[0] == ""
    assert job.returncode == 0
    found = (slurm / "program.4").read_text().splitlines()
    assert found == ["detect", *videos, "--resume", "--actions", "walk", "fall down"]


def test_an_array_with_gaps_has_no_shares(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARES", "1")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MAX", "7")
    job = script("detect.sh", slurm / "videos.txt", "--actions", "walk")
    assert "an array without gaps expected" in job.communicate(timeout=60)[0]
    assert job.returncode == 2


def test_a_step_that_ends_as_the_trap_does(slurm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STCLIP", "odd")
    (slurm / "bin" / "odd").write_text("#!/usr/bin/env bash\nexit 138\n")
    (slurm / "bin" / "odd").chmod(0o755)
    job = script("detect.sh", slurm / "videos.txt", "--actions", "walk")
    job.communicate(timeout=60)
    assert job.returncode == 138


@pytest.mark.parametrize(
    ("name", "program", "words"),
    [
        ("detect.sh", "STCLIP", ["videos.txt", "--actions", "walk"]),
        ("train.sh", "PYTHON", ["OUTPUT_DIR", "run"]),
    ],
)
def test_a_job_that_its_time_limit_ends_is_queued_again(
    slurm: Path, monkeypatch: pytest.MonkeyPatch, name: str, program: str, words: list[str]
) -> None:
    monkeypatch.chdir(slurm)
    monkeypatch.setenv(program, "long")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-2]")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    job = script(name, *words)
    while not (slurm / "step").exists() or not (slurm / "step").read_text():
        assert job.poll() is None
        time.sleep(0.01)
    job.send_signal(signal.SIGUSR1)
    job.communicate(timeout=60)
    assert job.returncode == 128 + signal.SIGTERM
    calls = (slurm / "calls").read_text().splitlines()
    assert calls[-2:] == ["scancel --signal=TERM 7", "scontrol requeue 7"]


def test_calls_of_the_scripts_without_arguments(slurm: Path) -> None:
    for name in ("detect.sh", "train.sh"):
        job = script(name)
        assert "usage: sbatch" in job.communicate(timeout=60)[0]
        assert job.returncode == 2


@pytest.mark.slow
def test_submitit_runs_a_command(tmp_path: Path) -> None:
    """As GETTING_STARTED.md has it, with submitit's executor for this machine."""
    submitit = pytest.importorskip("submitit")
    film = write_film(tmp_path / "film.mp4", [drawn_frame(240, 160, [(100.0, 30.0, 110.0)])] * 6)
    words = [str(film), "--actions", "walk", "wave", "--clip", "puppet", "--device", "cpu"]
    command = [sys.executable, "-m", "stclip", "detect", *words, "--out", str(tmp_path / "out")]
    executor = submitit.AutoExecutor(folder=tmp_path / "jobs", cluster="local")
    executor.update_parameters(timeout_min=5)
    job = executor.submit(submitit.helpers.CommandFunction(command))
    assert "look at" in job.result()
    assert (tmp_path / "out" / "film" / "index.html").exists()
