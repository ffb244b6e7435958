"""The tool on a model and videos of a few pixels: what it counts, prints, writes and refuses."""

import json
import multiprocessing
import time

import pytest
import torch

from stclip.benchmark import measure, work
from stclip.benchmark.measure import MatrixRate, Yardstick
from stclip.benchmark.work import BASE, Outcome, Watched, in_a_process
from stclip.errors import UserError
from tests.helpers import load_command, random_batch

tool = load_command("benchmark")
CPU = torch.device("cpu")
TINY = {
    "image_size": 48, "patch_size": 16, "vision_width": 64, "vision_layers": 2, "embed_dim": 64,
    "text_width": 64, "text_layers": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16**2, 64))
    monkeypatch.setattr(tool, "Yardstick", lambda device: Yardstick(device, lambda: model, 16))
    monkeypatch.setitem(measure.MATRIX_SIZE, "cpu", 64)
    monkeypatch.setitem(work.MODELS, "small", TINY)
    monkeypatch.setattr(tool, "FRAMES", 12)
    monkeypatch.setattr(tool, "HEIGHT", 64)
    monkeypatch.setattr(tool, "keep_freed_memory", lambda: None)  # this process runs other tests
    monkeypatch.setattr(measure, "STEADY", 1e9)


def outcome(tmp_path, *words):
    out = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
    tool.main([*words, "--json", str(out)])
    return json.loads(out.read_text())


SMALL = ("--model", "small", "--workers", "0", "--repeats", "2")


def test_pictures_of_another_size_resized_by_the_device(tmp_path, capsys):
    words = ("--keyframes", "3", "--persons", "2", "--size", "96x48", "--resize", "device")
    found = outcome(tmp_path, "infer", *SMALL, *words)
    assert (found["resize"], found["size"]) == ("device", "96x48")
    assert "resize device" in capsys.readouterr().out
    with pytest.raises(UserError, match="WIDTHxHEIGHT, such as 1280x720, expected, found 96"):
        tool.main(["infer", "--size", "96"])


def test_infer(tmp_path, capsys):
    found = outcome(tmp_path, "infer", *SMALL, "--keyframes", "18", "--classes", "9")
    assert (found["keyframes"], found["persons"], found["classes"]) == (18, 3, 9)
    assert found["u_per_keyframe_min"] <= found["u_per_keyframe"] <= found["u_per_keyframe_max"]
    assert len(found["yardstick_s"]) == len(found["matrix_gflop_per_s"]) == 3
    assert found["boxes_per_second"] == pytest.approx(3 * found["keyframes_per_second"], rel=0.01)
    assert 0 < found["data_share"] < 1  # without workers reading takes this process's time
    assert found["matrix_share"] > 0
    assert found["peak_memory_mb"] > 1
    assert found["processes"] == 1
    text = capsys.readouterr().out
    assert text.startswith("infer: model small, backbone clip, persons 3, classes 9, keyframes 18")
    for words in ("u per keyframe", "GFLOP per keyframe", "share waiting for data", "peak memory"):
        assert words in text


@pytest.mark.parametrize("work", [["infer", "--keyframes", "4"], ["train", "--keyframes", "2"]])
@pytest.mark.slow
def test_a_profile(tmp_path, work):
    out = tmp_path / "profile.txt"
    tool.main([*work, *SMALL, "--profile", str(out)])
    assert "aten::addmm" in out.read_text()
    with pytest.raises(UserError, match="exists already"):
        tool.main([*work, *SMALL, "--profile", str(out)])


@pytest.mark.slow
def test_operations(tmp_path):
    """More persons and a training take more; of a test those of the first video are counted."""
    words = (*SMALL, "--keyframes", "18", "--persons")
    one, three = (outcome(tmp_path, "infer", *words, number) for number in "13")
    for found in (one, three):
        assert sum(found["gflop_by_part"].values()) == pytest.approx(
            found["gflop_per_keyframe"], abs=5e-6
        )
    assert {"towers", "context_tokens", "context_prompting"} <= set(one["gflop_by_part"])
    # A person's crop is one more image beside the frame, and one more token of the interaction.
    towers = [found["gflop_by_part"]["towers"] for found in (one, three)]
    assert 1.5 < towers[1] / towers[0] < 2.0
    assert one["gflop_per_keyframe"] < three["gflop_per_keyframe"]
    whole = outcome(tmp_path, "infer", *SMALL, "--keyframes", "12", "--persons", "1")
    assert whole["gflop_per_keyframe"] == one["gflop_per_keyframe"]
    training = outcome(tmp_path, "train", *SMALL, "--keyframes", "4", "--persons", "1")
    assert training["gflop_by_part"]["backward"] > 0


@pytest.mark.parametrize("backbone", ["clip", pytest.param("xclip", marks=pytest.mark.slow)])
def test_train(tmp_path, backbone):
    words = ("--keyframes", "2", "--iterations", "3", "--precision", "bf16", "--workers", "1")
    before = multiprocessing.active_children()
    found = outcome(tmp_path, "train", *SMALL, *words, "--backbone", backbone)
    assert (found["keyframes"], found["iterations"], found["persons"]) == (2, 3, 1)
    assert found["precision"] == "bf16"
    assert found["backbone"] == backbone
    assert found["boxes_per_second"] == pytest.approx(found["keyframes_per_second"], rel=0.01)
    assert 0 <= found["later_data_share"] <= 1
    # Workers take no signals: the process would wait for one that is left at its end.
    assert set(multiprocessing.active_children()) <= set(before)


@pytest.mark.slow
def test_ways_to_train_with_less_memory(tmp_path):
    words = ("train", *SMALL, "--keyframes", "4")
    plain = outcome(tmp_path, *words)
    found = outcome(tmp_path, *words, "--accumulation", "2", "--recompute")
    assert (found["accumulation"], found["recompute"]) == (2, True)
    assert found["boxes_per_second"] == pytest.approx(found["keyframes_per_second"], rel=0.01)
    # Each keyframe's window is read for itself, so parts of a batch take the operations of a whole.
    # They are given with three decimals.
    assert found["gflop_per_keyframe"] == pytest.approx(plain["gflop_per_keyframe"], abs=0.0011)


def test_reading_ahead_is_not_taken_for_no_reading(tmp_path):
    with pytest.raises(UserError, match="--iterations 4: more than 4 expected with --workers 2"):
        tool.main(["train", "--iterations", "4", "--workers", "2"])


def test_interest_tokens_and_their_limit(tmp_path):
    words = ("--keyframes", "2", "--classes", "80", "--interest-tokens", "5")
    found = outcome(tmp_path, "infer", *SMALL, *words)
    assert found["interest_tokens"] == 5
    with pytest.raises(UserError, match="--interest-tokens 11: at most the 10 class and patch"):
        tool.main(["infer", *SMALL, "--interest-tokens", "11"])


@pytest.mark.slow
def test_data(tmp_path, capsys):
    found = outcome(
        tmp_path,
        "data",
        "--model",
        "small",
        "--workers",
        "0,1",
        "--repeats",
        "1",
        "--sources",
        "png,mp4",
    )
    rows = found["rows"]
    cases = [(source, workers) for source in ("png", "mp4") for workers in (0, 1)]
    assert [(row["source"], row["workers"]) for row in rows] == cases
    for row in rows:
        assert row["ms_per_keyframe"] > 0
        assert row["u_per_keyframe"] > 0
        steps = [row.get(name) for name in ("decode_ms", "preprocess_ms", "crop_ms")]
        assert all(steps) if row["workers"] == 0 else steps == [None] * 3
    assert "processor ms" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"SEED: data takes the keys DATALOADER\.RESIZE"):
        tool.main(["data", "SEED", "3"])
    with pytest.raises(UserError, match=r"DATALOADER\.RESIZE: KEY VALUE pairs expected, found 1 "):
        tool.main(["data", "DATALOADER.RESIZE"])


@pytest.mark.parametrize("source", tool.SOURCES)
def test_drawn_videos(tmp_path, source):
    dataset = tool.draw_dataset(tmp_path, 2, 18, "clap", source, (320, 64))
    assert [keyframe.key.frame for keyframe in dataset.keyframes] == [*range(1, 13), *range(1, 7)]
    assert list(dataset.videos) == ["clap/000001", "clap/000002"]
    for video in dataset.videos.values():
        assert len(video) == 12
        first, last = video.read([1, 12])
        assert first.shape == (64, 320, 3)
        assert abs(first.astype(float) - last).mean() > 20  # every frame is another picture


@pytest.mark.slow
def test_scale(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "CURVES", {"keyframes": (2, 4), "processes": (1, 1)})

    def in_this_process(options, threads):
        def measure(sizes):
            words = [f"--{name}={sizes[name]}" for name in ("persons", "classes")]
            words += [f"--keyframes={min(sizes['keyframes'], 4)}", "--workers=0"]
            return outcome(tmp_path, "infer", *options, *words, f"--threads={threads}")

        return measure

    monkeypatch.setattr(tool, "in_a_process", in_this_process)
    plot = tmp_path / "plot.svg"
    words = ("--curves", "keyframes", "--repeats", "1", "--threads", "1", "--plot", str(plot))
    found = outcome(tmp_path, "scale", *words)
    (curve,) = found["curves"]
    assert [point["x"] for point in curve["points"]] == [2, 4]
    assert "<svg" in plot.read_text()
    with pytest.raises(UserError, match=r"plot\.svg: exists already"):
        tool.main(["scale", "--plot", str(plot)])
    with pytest.raises(UserError, match=r"ends in \.svg"):
        tool.main(["scale", "--plot", str(tmp_path / "plot.png")])


def test_results_are_never_overwritten(tmp_path):
    out = tmp_path / "out.json"
    out.write_text("mine")
    for command in ("infer", "train", "data", "scale"):
        with pytest.raises(UserError, match="exists already; choose another name"):
            tool.main([command, "--json", str(out)])
    assert out.read_text() == "mine"


@pytest.mark.parametrize(
    "words",
    [
        ["data", "--sources", "png,gif"],
        ["infer", "--persons", "0"],
        ["train", "--repeats", "0"],
        ["infer", "--workers", "-1"],
        [],
    ],
)
def test_bad_options(words):
    with pytest.raises(UserError):
        tool.main(words)


def result(path, **changes):
    value = {
        "work": "infer", "model": "small", "precision": "fp32", "steady": True,
        "u_per_keyframe": 4.0, "u_per_keyframe_min": 3.9, "u_per_keyframe_max": 4.1,
        "seconds_per_keyframe": 77.77, "keyframes_per_second": 88.88, "yardstick_s": [99.99],
        "matrix_share": 0.5, "data_share": 0.1, "peak_memory_mb": 1000.0,
    }  # fmt: skip
    value |= changes
    path.write_text(json.dumps({k: v for k, v in value.items() if v is not None}))
    return str(path)


def test_compare_shows_ratios_of_one_process_only(tmp_path, capsys):
    faster = {"u_per_keyframe": 2.0, "u_per_keyframe_min": 1.9, "u_per_keyframe_max": 2.2}
    one = result(tmp_path / "one.json")
    two = result(tmp_path / "two.json", precision="bf16", size="1280x720", recompute=True, **faster)
    three = result(tmp_path / "three.json", u_per_keyframe_max=5.0)
    four = result(tmp_path / "four.json", u_per_keyframe_min=4.2, u_per_keyframe_max=9.0)
    tool.main(["compare", one, two, three, four])
    text = capsys.readouterr().out
    lines = {line[:26].strip(): line.split() for line in text.splitlines()}
    assert lines["against the first"][-4:] == ["-", "lower", "overlap", "higher"]
    assert lines["u per keyframe"][-4:] == ["4.00", "2.00", "4.00", "4.00"]
    assert lines["precision"][-4:] == ["fp32", "bf16", "fp32", "fp32"]
    assert lines["size"][-4:] == ["-", "1280x720", "-", "-"]
    assert lines["recompute"][-4:] == ["-", "True", "-", "-"]
    for seconds_or_quotients in ("77.7", "88.8", "99.9", "0.50", "2.00x"):
        assert seconds_or_quotients not in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"work": "train"}, "is a result of train, and .* one of infer"),
        ({"work": "data"}, "no result of stclip benchmark infer or train"),
        ({"matrix_share": None}, "it has no 'matrix_share'"),
        ({"steady": False}, "the yardstick changed by over 15 %"),
    ],
)
def test_compare_refuses(tmp_path, changes, message):
    one, two = result(tmp_path / "one.json"), result(tmp_path / "two.json", **changes)
    with pytest.raises(UserError, match=message):
        tool.main(["compare", one, two])


def test_waiting_is_what_the_loader_takes():
    batches = [random_batch([1, 1], size=48) for _ in range(3)]

    def slow():
        for batch in batches:
            time.sleep(0.02)
            yield batch

    watched = Watched(slow())
    for _ in watched:
        time.sleep(0.05)  # does not count
    assert len(watched.waits) == 4  # and for the end
    assert all(wait >= 0.02 for wait in watched.waits[:3])
    assert watched.boxes == 6
    run = Outcome(10.0, [4.0, 1.0, 2.0], boxes=6, memory_mb=1.0)
    assert run.data_share == pytest.approx(0.7)
    assert run.later_data_share == pytest.approx(0.5)


def test_matrix_rate_is_positive_in_every_dtype():
    for precision in measure.DTYPES:
        assert MatrixRate(CPU, precision, size=16).flops_per_second() > 0


@pytest.mark.slow
def test_two_processes(tmp_path):
    """As scale starts it; the yardstick is the real one."""
    options = ["--model", "small", "--device", "cpu", "--repeats", "1", "--workers", "0"]
    found = in_a_process(options, 1)({**BASE, "keyframes": 24, "processes": 2})
    assert found["processes"] == 2
    assert found["boxes_per_second"] == pytest.approx(3 * found["keyframes_per_second"], rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stclip", "frame_crop"])
def test_detect(tmp_path, capsys, name):
    words = ["detect", "--name", name, "--model", "small", "--persons", "1,3", "--seconds", "1"]
    assert load_command("benchmark").main([*words, "--json", str(tmp_path / "out.json")]) == 0
    assert "all but the model" in capsys.readouterr().out
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert [row["persons"] for row in rows] == [1, 3]
    for row in rows:
        assert all(seconds > 0 for seconds in row["parts"].values())
        assert sum(row["parts"].values()) < row["real_time"]
        assert 0 < row["other_share"] < 1
