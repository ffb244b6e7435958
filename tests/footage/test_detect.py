"""From a video and words to who does what when: the whole way, on drawn people."""

import json
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

import stclip
from stclip.cli import run
from stclip.engine.checkpoint import Checkpoint, save_checkpoint
from stclip.errors import UserError
from stclip.footage.detect import detect, load_model
from stclip.footage.events import EventRule
from stclip.footage.pipeline import Settings
from stclip.footage.results import read_result
from tests.footage.make import drawn_frame, write_film
from tests.helpers import load_command, tiny_model

FPS, SIZE = 10, (240, 160)
NOBODY = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)
ACTIONS = ["walk", "wave", "sit"]


def pictures(seconds: float = 3.0) -> Iterator[np.ndarray]:
    """One person walks to the right, another one stands."""
    for n in range(round(seconds * FPS)):
        yield drawn_frame(*SIZE, [(50.0 + 2 * n, 30.0, 110.0), (200.0, 40.0, 90.0)])


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        sound = container.add_stream("aac", rate=8000)
        for n, picture in enumerate(pictures()):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = n, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        for start in range(0, 3 * 8000, 1024):
            part = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            part.sample_rate, part.pts, part.time_base = 8000, start, Fraction(1, 8000)
            container.mux(sound.encode(part))
        container.mux(stream.encode())
        container.mux(sound.encode())
    return path


@pytest.fixture(scope="module")
def found(film: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command leaves."""
    out = tmp_path_factory.mktemp("found")
    assert command(film, "--out", str(out)) == 0
    return out / "film"


def command(film: Path, *options: str) -> int:
    words = [str(film), "--actions", *ACTIONS, "--none-of", "stand", "--clip", "puppet"]
    return load_command("detect").main([*words, *options])


def test_two_people_are_found_and_followed(found: Path) -> None:
    result = read_result(found / "result.json")
    assert result.complete
    assert (result.actions, result.none_of) == (ACTIONS, ["stand"])
    assert result.video["size"] == list(SIZE)
    assert result.video["frames"] == 30
    assert len(result.tracks) == 2
    moving = max(result.tracks.values(), key=lambda t: float(np.ptp(t.boxes[:, 2])))
    assert len(moving.boxes) >= 25
    middle = moving.boxes[:, [2, 4]].mean(axis=1)
    expected = 50 + 2 * (moving.boxes[:, 1] - 1)
    assert np.abs(middle - expected).max() < 15
    for track in result.tracks.values():
        times, scores = track.timeline()
        assert np.abs(np.diff(times)[1:] - 0.5).max() < 1e-6  # once on the grid of half seconds
        np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-3)


def test_the_video_plays_and_keeps_times_and_sound(film: Path, found: Path) -> None:
    with av.open(str(found / "annotated.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        frames = list(container.decode(stream))
        assert container.streams.audio[0].codec_context.name == "aac"
    assert heard(found / "annotated.mp4") == heard(film)
    times = [round(float(frame.pts * frame.time_base), 3) for frame in frames]
    assert times == [n / FPS for n in range(30)]
    drawn = frames[20].to_ndarray(format="rgb24").astype(int)
    plain = list(pictures())[20].astype(int)
    assert (np.abs(drawn - plain).max(axis=2) > 60).mean() > 0.01  # boxes and labels
    content = (found / "annotated.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays before it is whole


def heard(path: Path) -> tuple[float, int]:
    """When the sound begins, and how many samples it has."""
    with av.open(str(path)) as container:
        parts = list(container.decode(audio=0))
    return float(parts[0].pts * parts[0].time_base), sum(part.samples for part in parts)


def test_files_for_people(found: Path) -> None:
    assert {path.name for path in found.iterdir()} == {
        "annotated.mp4", "events.csv", "index.html", "result.json"
    }  # fmt: skip
    assert (found / "events.csv").read_text("utf-8-sig").startswith("person,action,start,end,score")
    page = (found / "index.html").read_text()
    assert 'src="annotated.mp4"' in page
    data = json.loads(re.search(r"const data = (.*);", page)[1])
    assert [person["id"] for person in data["persons"]] == [1, 2]
    assert data["duration"] == 3.0


def test_what_is_complete_is_not_done_again(
    film: Path, found: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (found / "result.json").stat().st_mtime_ns
    assert command(film, "--out", str(found.parent)) == 0
    assert "complete already" in capsys.readouterr().out
    assert (found / "result.json").stat().st_mtime_ns == before


def test_an_interrupted_run_goes_on_and_ends_alike(
    film: Path,
    found: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from stclip.footage import pipeline

    plain = pipeline.Detection._note
    calls = []

    def interrupt(self, step) -> None:
        calls.append(step.frame.number)
        if len(calls) == 17:
            raise KeyboardInterrupt
        plain(self, step)

    monkeypatch.setattr(pipeline.Detection, "_note", interrupt)
    with pytest.raises(KeyboardInterrupt):
        command(film, "--out", str(tmp_path))
    assert f"{tmp_path / 'film'}: has what was found so far; the same" in capsys.readouterr().err
    half = read_result(tmp_path / "film/result.json")
    assert not half.complete
    assert half.video["frames"] == 16
    assert 'src="annotated.mp4"' in (tmp_path / "film/index.html").read_text()
    with av.open(str(tmp_path / "film/annotated.mp4")) as container:
        assert len(list(container.decode(video=0))) == 16
    with pytest.raises(UserError, match=r"another video, model or settings.* without resume"):
        command(film, "--out", str(tmp_path), "--resume", "--score-every", "0.2")
    asked = []
    monkeypatch.setattr(pipeline.Detection, "_note", plain)
    from stclip.footage import given

    ask = given.Detected.__call__
    monkeypatch.setattr(
        given.Detected, "__call__", lambda self, f: asked.append(f.number) or ask(self, f)
    )
    assert command(film, "--out", str(tmp_path), "--resume") == 0
    assert asked == list(range(18, 31))
    again = json.loads((tmp_path / "film/result.json").read_text())
    assert again == json.loads((found / "result.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [["--threshold", "0.9"], ["--end", "0.3"], ["--precision", "bf16"]]
)
def test_only_the_same_is_complete(film: Path, tmp_path: Path, options: list[str]) -> None:
    words = ["--out", str(tmp_path), "--no-video", "--end", "0.4"]
    assert command(film, *words) == 0
    assert command(film, *words) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["film"]
    assert command(film, *words, *options) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"film", "film.old-1"}


def test_exports_of_what_is_complete(film: Path, found: Path) -> None:
    assert command(film, "--out", str(found.parent), "--export", "mot") == 0
    for name in ("gt.txt", "actions.csv"):
        assert (found / name).read_text()
        (found / name).unlink()


def test_two_videos_of_one_name(film: Path, tmp_path: Path, capsys) -> None:
    other = tmp_path / "film.mp4"
    other.write_bytes(film.read_bytes())
    words = ["--out", str(tmp_path / "out"), "--no-video", "--end", "0.3"]
    assert command(film, str(other), *words) == 2
    assert "another video of this call is called film" in capsys.readouterr().err
    assert read_result(tmp_path / "out/film/result.json").video["path"] == str(film)


def test_saving_in_python_overwrites_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        nobody = detect(pictures(0.5), ACTIONS, clip="puppet", detector=lambda _: [NOBODY], fps=FPS)
        nobody.save(tmp_path / "mine", video=False)
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "mine.old-1"}


@pytest.mark.parametrize("codec", ["aac", "flac"])
def test_sound_stays_where_it_was(tmp_path: Path, codec: str) -> None:
    """It begins at a second and a half, and is copied or encoded again."""
    film = tmp_path / "loud.mkv"
    with av.open(str(film), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        sound = container.add_stream(codec, rate=8000)
        for n, picture in enumerate(pictures()):
            frame = av.VideoFrame.from_ndarray(picture, "rgb24")
            frame.pts, frame.time_base = n, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        for start in range(12000, 24000, 1024):
            part = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), "s16", "mono")
            part.sample_rate, part.pts, part.time_base = 8000, start, Fraction(1, 8000)
            container.mux(sound.encode(part))
        container.mux(stream.encode())
        container.mux(sound.encode())
    nobody = detect(film, ACTIONS, clip="puppet", detector=lambda _: [NOBODY])
    nobody.save(tmp_path / "found")
    with av.open(str(tmp_path / "found/annotated.mp4")) as container:
        packets = [p for p in container.demux(container.streams.audio[0]) if p.size]
        times = [float(p.pts * p.time_base) for p in packets]
    assert times[0] == pytest.approx(1.5, abs=0.15)
    assert times[-1] == pytest.approx(2.9, abs=0.2)


@pytest.mark.slow
def test_other_results_are_kept(film: Path, tmp_path: Path) -> None:
    assert command(film, "--out", str(tmp_path), "--no-video", "--end", "0.5") == 0
    words = [str(film), "--actions", "jump", "sit", "--clip", "puppet", "--out", str(tmp_path)]
    assert load_command("detect").main([*words, "--no-video", "--end", "0.5"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"film", "film.old-1"}
    assert not (tmp_path / "film/annotated.mp4").exists()
    (tmp_path / "film2").mkdir()
    other = film.with_name("film2.mp4")
    other.write_bytes(film.read_bytes())
    (tmp_path / "film2/thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        command(other, "--out", str(tmp_path))


def test_in_python_with_frames_in_memory() -> None:
    given = [(np.array([[20.0, 30, 80, 140]], np.float32), np.array([0.9], np.float32))]
    found = detect(
        pictures(1.0), ACTIONS, clip="puppet", detector=lambda frames: given, fps=FPS,
        settings=Settings(score_every=0.2), device="cpu",
    )  # fmt: skip
    steps = list(found)
    assert [step.frame.number for step in steps] == list(range(1, 11))
    (track,) = found.footage.tracks.values()
    assert len(track.timeline()[0]) == 5
    assert found.footage.complete


@pytest.mark.slow
def test_a_full_disk(tmp_path: Path) -> None:
    """No file may be larger than 40 kB, which the annotated video of a flickering film is."""
    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 140, picture.shape, dtype=np.uint8) for picture in pictures())
    film = write_film(
        tmp_path / "film.mp4", (np.maximum(a, b) for a, b in zip(pictures(), noise, strict=True))
    )
    words = [sys.executable, "-m", "stclip", "detect", str(film), "--out", str(tmp_path)]
    words += ["--actions", *ACTIONS, "--clip", "puppet"]
    full = subprocess.run(
        words, check=False, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)),
    )  # fmt: skip
    assert full.returncode == 2
    assert "Traceback" not in full.stderr
    assert "error: " in full.stderr.splitlines()[-1]
    assert "--resume goes on" in full.stderr
    left = {path.name for path in (tmp_path / "film").iterdir()}
    assert left == {".detections.jsonl", "events.csv", "index.html", "result.json"}
    assert subprocess.run([*words, "--resume"], check=False, capture_output=True).returncode == 0
    assert (tmp_path / "film/annotated.mp4").stat().st_size > 40_000
    assert not (tmp_path / "film/.detections.jsonl").exists()


@pytest.mark.parametrize(("groups", "temperature"), [(None, 0.01), ({"wave": "person"}, 0.07)])
def test_scores_of_trained_weights_are_as_sharp_as_clips(tmp_path, groups, temperature) -> None:
    save_checkpoint(tmp_path / "a.pth", Checkpoint(tiny_model().state_dict(), groups=groups))
    model, facts = load_model(["wave", "sit"], weights=tmp_path / "a.pth", device="cpu")
    assert model.model.temperature == temperature
    assert facts == {"name": "ST-CLIP", "weights": str(tmp_path / "a.pth")}


def test_the_crops_feature_beside_trained_weights(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pth", Checkpoint(tiny_model().state_dict()))
    give = partial(load_model, ["wave", "sit"], device="cpu")
    model, facts = give(weights=tmp_path / "a.pth", crop_weight=0.5)
    assert (model.model.crop_weight, facts["crop_weight"]) == (0.5, 0.5)
    with pytest.raises(UserError, match=r"crop weight: 0 or more expected, found -1"):
        give(weights=tmp_path / "a.pth", crop_weight=-1.0)
    with pytest.raises(UserError, match=r"crop weight: belongs to the weights of an ST-CLIP"):
        give(clip="puppet", crop_weight=1.0)


def test_a_video_that_is_not_there_is_told_before_a_download(tmp_path: Path) -> None:
    words = [str(tmp_path / "none.mp4"), "--actions", *ACTIONS]  # with ViT-B/16, which is not here
    with pytest.raises(UserError, match=r"none\.mp4: there is no such file or folder; give a"):
        load_command("detect").main(words)


def test_wordings_of_actions() -> None:
    model, facts = load_model(["wave | a person waving | greeting", "sit"], clip="puppet")
    plain, none = load_model(["wave", "sit"], clip="puppet")
    assert model.labels == plain.labels == ["wave", "sit"]
    assert facts["wordings"] == ["wave | a person waving | greeting", "sit"]
    assert "wordings" not in none
    with pytest.raises(UserError, match="'wave' twice"):
        load_model(["wave | greeting", "wave"], clip="puppet")
    with pytest.raises(UserError, match="none of them empty"):
        load_model(["wave |  | greeting", "sit"], clip="puppet")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"score_every": 0}, "score_every: a number above 0 expected, found 0"),
        ({"detect_rate": float("inf")}, "detect_rate: a number above 0 expected, found inf"),
        ({"cut_threshold": -1}, "cut_threshold: 0 to 255"),
        ({"detect_rate": -1}, "detect_rate: a number above 0"),
        ({"track_threshold": 1.5}, "track_threshold: 0 to 1 expected, found 1.5"),
        ({"events": EventRule(window=-1)}, "window: 0 or more"),
    ],
)
def test_numbers_that_cannot_be(options, words) -> None:
    with pytest.raises(UserError, match=words):
        Settings(**options)


def test_between_the_frames_that_a_detector_sees_people_move_in_a_straight_line() -> None:
    places = {1: [10.0], 2: [0.0], 3: [30.0, 150.0], 4: [0.0], 5: [50.0, 150.0], 6: [60.0]}
    seen = []

    def find(frames):
        seen.append(number := int(frames[0, 0, 0, 0]))
        boxes = np.array([[x, 30, x + 60, 140] for x in places[number]], np.float32)
        return [(boxes, np.full(len(boxes), 0.9, np.float32))]

    frames = [np.full((150, 220, 3), number, np.uint8) for number in places]
    found = detect(
        frames, ACTIONS, clip="puppet", detector=find, fps=20,
        settings=Settings(detect_rate=10, track_threshold=0.5), device="cpu",
    )  # fmt: skip
    left = [step.persons.boxes[step.persons.ids == 1, 0].tolist() for step in found]
    assert seen == [1, 3, 5, 6]  # the last one too, which nobody follows
    assert left == [[10], [20], [30], [40], [50], [60]]


def test_times_say_which_frames_the_detector_sees_and_few_are_left_out() -> None:
    def seen(times: list[float], fps: float | None) -> list[float]:
        looked = []

        def find(frames):
            looked.append(float(frames[0, 0, 0, 0]))
            return [NOBODY]

        shown = [(time, np.full((40, 40, 3), n, np.uint8)) for n, time in enumerate(times)]
        options = {"settings": Settings(detect_rate=10), "device": "cpu", "fps": fps}
        detect(iter(shown), ACTIONS, clip="puppet", detector=find, **options).all()
        return looked

    assert seen([0.2 * n for n in range(6)], fps=None) == [0, 1, 2, 3, 4, 5]
    assert seen([0, 0.05, 0.1, 0.15, 0.4, 0.45], fps=90000) == [0, 2, 4, 5]
    assert seen([0.001 * n for n in range(20)], fps=1000) == [0, 9, 18, 19]


def test_a_detector_that_gives_something_else(film: Path) -> None:
    def wrong(frames):
        return [(np.zeros((2, 3)), np.ones(2))]

    with pytest.raises(UserError, match=r"boxes \(k, 4\) and scores \(k,\) .* found \(2, 3\)"):
        stclip.detect(film, ACTIONS, clip="puppet", detector=wrong).all()


@pytest.mark.parametrize("marked", [False, True])
def test_a_window_at_a_time_gives_what_the_detector_gives(marked: bool, tmp_path: Path) -> None:
    """The stream's scores are those of ``Detector.score`` with the whole video at hand."""
    weights = None
    if marked:
        weights, config = tmp_path / "a.pth", "MODEL: {HEAD: {MARKED_WEIGHT: 1.0}}"
        save_checkpoint(weights, Checkpoint(tiny_model().state_dict(), config=config))
    frames = list(pictures(1.5))
    box = np.array([[20.0, 30, 80, 140]], np.float32)
    found = detect(
        frames, ACTIONS, weights=weights, clip="puppet", fps=FPS,
        settings=Settings(score_every=0.3), device="cpu",
        detector=lambda _: [(box, np.array([0.9], np.float32))],
    ).all()  # fmt: skip
    times, scores = found.tracks[1].timeline()
    model, _ = load_model(ACTIONS, weights=weights, clip="puppet", device="cpu")
    assert model.needs.frame_boxes == marked
    for time, row in zip(times, scores, strict=True):
        expected = model.score(frames, box, round(time * FPS))
        np.testing.assert_allclose(row, expected[0], atol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no actions: name at least one"),
        (["--actions", "walk"], "alone would get a score of 1"),
        (["--actions", "walk", "walk"], "'walk' twice"),
        (["--actions", "walk", " "], "distinct names expected"),
        (["--actions", "walk", "sit", "--detector", "magic"], "magic"),
        (["--actions", "walk", "sit", "--boxes", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--actions", "walk", "sit", "--clip", "nothing.pt"], "nothing.pt"),
        (["--actions", "a", "b", "--clip", "puppet", "--start", "5", "--end", "4"], "start 5,"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(film: Path, words, message, capsys) -> None:
    main = load_command("detect").main
    with pytest.raises(SystemExit) as stopped:
        run(lambda: main([str(film), *words, "--out", "unused"]))
    assert stopped.value.code == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_options_from_a_file(film: Path, tmp_path: Path) -> None:
    """The command line wins."""
    options = tmp_path / "options.yaml"
    options.write_text(
        "actions: [walk, fall down]\nnone-of: stand\nclip: puppet\nno-video: true\n"
        "resume: false\nend: 0.3\nwindow: 4\nscore-every: 1.5\nexport: []\n"
    )
    words = ["--config-file", str(options), "--out", str(tmp_path), "--window", "3", str(film)]
    assert load_command("detect").main(words) == 0
    result = read_result(tmp_path / "film/result.json")
    assert (result.actions, result.none_of) == (["walk", "fall down"], ["stand"])
    assert (result.settings["events"]["window"], result.settings["score_every"]) == (3, 1.5)
    assert not (tmp_path / "film/annotated.mp4").exists()
    again = ["--actions", "sit", "jump"]
    assert load_command("detect").main([*words, *again]) == 0
    assert read_result(tmp_path / "film/result.json").actions == ["sit", "jump"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("scoreevery: 1", "'scoreevery' is no option; did you mean score-every?"),
        ("config-file: a.yaml", "'config-file' is no option"),
        ("3: a", "3 is no option"),
        ("- walk", "names of options and their values expected"),
        ("", "names of options and their values expected"),
        ("window: [1, 2]", "window: a text or number expected, found \\[1, 2\\]"),
        ("window: much", "--window: invalid float value: 'much'"),
        ("window:", "window: a text or number expected, found None"),
        ("no-video: 1", "no-video: true or false expected, found 1"),
        ("actions: [yes, walk]", "actions: a text or number expected or a list.*quotes"),
        ("actions: {walk: 1}", "actions: a text or number expected or a list"),
        ("precision: fp8", "--precision: invalid choice: 'fp8'"),
        ("window: 1\nwindow: 2", "line 2: the key window was set"),
    ],
)
def test_mistakes_in_a_file_of_options(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "options.yaml").write_text(text)
    words = ["film.mp4", "--config-file", str(tmp_path / "options.yaml")]
    with pytest.raises(UserError, match=rf"options.yaml: .*{message}"):
        load_command("detect").main(words)


def test_a_video_without_anybody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    from PIL import Image

    for n in range(3):
        Image.fromarray(np.full((64, 64, 3), 128, np.uint8)).save(folder / f"{n + 1:05d}.png")
    assert command(folder, "--out", str(tmp_path / "out")) == 0
    assert "nobody was found" in capsys.readouterr().out
    result = read_result(tmp_path / "out/empty/result.json")
    assert result.complete
    assert result.events == []


def test_stclip_has_it() -> None:
    assert stclip.detect is detect
