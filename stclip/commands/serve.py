"""Show stclip detect as a web page: give a video, say what you look for, see who does it when.

The page is for everybody who can reach it: by default this machine alone. Videos wait for each
other, except that --jobs of them are looked at together. All files of a job are removed after
--keep hours, and when the server ends. Without --clip and --weights users get CLIP's ViT-B/16,
which is downloaded once; the small CLIP "puppet" is always there for the drawn examples. Needs the
extra app: pip install "stclip[app]".

Examples:
    stclip serve
    stclip serve --clip puppet
    stclip serve --weights model_0003000.pth --clip ViT-L/14 --jobs 2 --host 0.0.0.0 --port 8000
"""

import argparse
import importlib.util
import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from stclip.cli import Parser, positive
from stclip.errors import UserError
from stclip.files import locked
from stclip.serve.jobs import Jobs, Limits
from stclip.serve.worker import Offer, ProcessWorker

PUPPET = "puppet"
# Drawn films that come along: file, title, seed, what people do, and what of it is looked for.
_FILMS = (
    ("waving.mp4", "Who waves?", 6, ("wave", "walk"), ("wave",)),
    ("clapping.mp4", "Who claps, who sits down?", 10, ("clap", "sit"), ("clap", "sit")),
)
_SECONDS, _PEOPLE = 8, 2  # of a film


def main(argv: list[str] | None = None) -> int:
    """Serve until somebody ends it."""
    args = _parser().parse_args(argv)
    offer = _offer(args)
    if importlib.util.find_spec("gradio") is None:
        raise UserError('gradio is not installed, which the page needs: pip install "stclip[app]"')
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    with _listening(args.host, args.port) as listening, locked(args.folder, "serve"):
        examples = _examples(args.folder)
        print("loading the models ...", flush=True)
        jobs = Jobs(args.folder, lambda wait: ProcessWorker(offer, wait), args.jobs, offer.limits)
        try:
            # Read when Gradio is imported: it sends nothing anywhere, and keeps uploads where they
            # are removed.
            os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
            os.environ["GRADIO_TEMP_DIR"] = str(jobs.uploads.resolve())
            import uvicorn

            from stclip.serve.page import Example, build

            app = build(jobs, offer, [Example(**example) for example in examples])
            listening.listen()
            host, port = listening.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            print(f"open http://{shown}:{port} in a browser; Ctrl-C ends this", flush=True)
            # No log of requests: their addresses hold what gives access to results.
            config = uvicorn.Config(
                app, log_level="warning", access_log=False, timeout_graceful_shutdown=2
            )
            _run(uvicorn.Server(config), listening)
        finally:
            jobs.close()
    return 0


def _run(server: Any, listening: socket.socket) -> None:
    """Run until a signal comes, which is this command's to answer: hence the thread.

    Raises:
        UserError: the server ended by itself.
    """
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        thread.join()
    finally:
        server.should_exit = True
        thread.join()
    raise UserError("the web server ended by itself; what is written above says why")


def _offer(args: argparse.Namespace) -> Offer:
    models: dict[str, dict[str, str]] = {}
    for weights in args.weights or []:
        if not weights.is_file():
            raise UserError(f"{weights}: no such file; --weights takes checkpoints of ST-CLIP")
        models[f"ST-CLIP {weights.stem}"] = {"weights": str(weights)}
    clips = args.clip or ([] if models else ["ViT-B/16"])
    for clip in [*clips, *([] if PUPPET in clips else [PUPPET])]:
        models[Path(clip).stem if Path(clip).is_file() else clip] = {"clip": clip}
    if len(models) < len(args.weights or []) + len(clips):
        raise UserError("--weights, --clip: two of them have the same name; rename a file")
    limits = Limits(
        upload=args.max_upload * 2**20,
        video=60 * args.max_minutes,
        job=60 * args.max_work,
        memory=int(args.max_memory * 2**30),
        waiting=args.max_waiting,
        keep=3600 * args.keep,
    )
    threads = args.threads or max((os.cpu_count() or 1) // args.jobs, 1)
    return Offer(
        models, tuple(dict.fromkeys(args.detector)), args.device, args.precision, threads,
        args.allow_addresses, limits,
    )  # fmt: skip


def _examples(folder: Path) -> list[dict[str, Any]]:
    """The drawn films, which are drawn when they are not there yet."""
    examples = []
    for file, title, seed, done, wanted in _FILMS:
        path = (folder / "films" / file).resolve()
        truth = path.with_suffix(".tubes.json")  # is written last
        if not truth.exists():
            print(f"drawing the example {path.stem} ...", flush=True)
            path.unlink(missing_ok=True)
            # In a process of its own: this one does without torch, and so in little memory.
            options = {"out": path, "people": _PEOPLE, "seconds": _SECONDS, "seed": seed}
            words = [f"--{name}={value}" for name, value in options.items()]
            command = [sys.executable, "-m", "stclip", "puppet", "film", *words, "--actions", *done]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        others = [*(action for action in done if action not in wanted), "stand"]
        examples.append(
            {"title": title, "path": path, "actions": "\n".join(wanted),
             "none_of": ", ".join(others), "model": PUPPET}
        )  # fmt: skip
    return examples


def _listening(host: str, port: int) -> socket.socket:
    """The socket, before anything is loaded."""
    try:
        family, kind, number, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, number)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"--host {host} --port {port}: cannot listen there ({reason}); choose another --port"
        ) from error
    return listening


def _parser() -> Parser:
    parser = Parser(description=__doc__)
    add = parser.add_argument_group("what users choose from").add_argument
    add("--weights", nargs="+", type=Path, metavar="FILE", help="checkpoints of ST-CLIP")
    add("--clip", nargs="+", metavar="NAME", help="names or files of CLIPs, as of stclip detect")
    add(
        "--detector", nargs="+", default=["nanodet"], metavar="NAME",
        help="person detectors: nanodet, dfine, models of torchvision",
    )  # fmt: skip
    add(
        "--allow-addresses", action="store_true",
        help="videos from http(s) addresses as well, of the public internet alone",
    )  # fmt: skip
    add = parser.add_argument_group("limits").add_argument
    add("--jobs", type=positive, default=1, help="videos at once; each takes the memory of a model")
    add("--max-upload", type=positive, default=200, help="megabytes of a video file")
    add("--max-minutes", type=_above_0, default=10.0, help="minutes of a video that are looked at")
    add("--max-work", type=_above_0, default=30.0, help="minutes of work on one video")
    add("--max-memory", type=_above_0, default=6.0, help="GB of one job (Linux)")
    add("--max-waiting", type=positive, default=20, help="videos that wait at most")
    add("--keep", type=_above_0, default=2.0, help="hours that results are kept")
    add = parser.add_argument_group("server").add_argument
    add("--host", default="127.0.0.1", help="0.0.0.0 lets the whole network in")
    add("--port", type=int, default=7860, help="0 takes any that is free")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    add("--precision", default="fp32", choices=("fp32", "bf16", "fp16"))
    add("--threads", type=positive, help="of the CPU for each job (default: all, shared)")
    add(
        "--folder", type=Path, default=Path.home() / ".cache" / "stclip" / "serve",
        help="for the examples, and for uploads and results until they are removed "
        "(default: ~/.cache/stclip/serve)",
    )  # fmt: skip
    return parser


def _above_0(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"a number above 0 expected, found {text}")
    return number
