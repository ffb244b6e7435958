"""The page, made with Gradio, and the web server's routes."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse

from stclip.errors import UserError
from stclip.serve import view
from stclip.serve.fields import KEEP, LEAST_BOX, NONE_OF, request_of, video_of
from stclip.serve.gate import Gate
from stclip.serve.jobs import DONE, Job, Jobs
from stclip.serve.worker import Offer

logger = logging.getLogger(__name__)

_TITLE = "Who does what when in your video?"
# The page of a result: nothing from elsewhere, and no rights on this server.
_RESULT_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; media-src 'self'; "
    "sandbox allow-scripts"
)
_TOKEN_IN_ADDRESS = """(token) => {
  const address = new URL(location.href);
  address.searchParams.set("job", token);
  if (!token) { address.searchParams.delete("job"); }
  history.replaceState(history.state, "", address);
}"""
_TOKEN_OF_ADDRESS = '() => new URLSearchParams(location.search).get("job") || ""'
_GO_TO_OUTCOME = """() => {
  const outcome = document.getElementById("st-outcome");
  const below = outcome && outcome.getBoundingClientRect().top > innerHeight / 2;
  if (below && outcome.dataset.state !== "none") {
    outcome.scrollIntoView({ behavior: "smooth", block: "start" });
  }
}"""


@dataclass(frozen=True)
class Example:
    """A video that comes along.

    Attributes:
        title: of its button.
        path: of the video.
        actions: what is looked for.
        none_of: what else people may do.
        model: which model knows such pictures.
    """

    title: str
    path: Path
    actions: str
    none_of: str
    model: str


def build(jobs: Jobs, offer: Offer, examples: Sequence[Example]) -> FastAPI:
    """The web application.

    Args:
        jobs: the queue.
        offer: what users choose from.
        examples: videos that come along.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.api_route("/jobs/{token}/{name}", methods=["GET", "HEAD"])
    def file(token: str, name: str) -> FileResponse:
        job = jobs.find(token)
        if job is None or job.state != DONE or name not in view.FILES:
            raise HTTPException(404)
        path = job.results / name
        if not path.is_file():
            raise HTTPException(404)
        headers = {"cache-control": "private, no-store"}
        if name == view.PAGE:
            headers["content-security-policy"] = _RESULT_POLICY
        return FileResponse(path, media_type=view.FILES[name][0], headers=headers)

    app.add_middleware(Gate, uploads=jobs.uploads, largest=offer.limits.upload)
    blocks = _blocks(jobs, offer, examples)
    blocks.has_launched = True  # else Gradio, when mounted, takes every path for an upload
    return gradio.mount_gradio_app(
        app,
        blocks,
        path="/",
        allowed_paths=sorted({str(example.path.parent) for example in examples}),
        max_file_size=offer.limits.upload,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=_theme(),
        css=view.asset("page.css"),
        head=f"<script>{view.asset('page.js')}</script>",
    )


def _theme() -> gradio.Theme:
    """Fonts of the system, and small print that can be read."""
    return gradio.themes.Default(
        font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")
    ).set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
    )


def _blocks(jobs: Jobs, offer: Offer, examples: Sequence[Example]) -> gradio.Blocks:
    limits = offer.limits
    with gradio.Blocks(title=_TITLE, analytics_enabled=False) as blocks:
        gradio.HTML(
            f"<h1>{_TITLE}</h1><p>Give a video and say what you look for, in your own words. "
            "People are found and followed, and you see who does it, from when to when.</p>",
            elem_id="st-head",
        )
        with gradio.Row():
            with gradio.Column(scale=2, min_width=320):
                video = gradio.Video(
                    label=f"1. Your video, up to {view.duration(limits.video)} and "
                    f"{limits.upload / 2**20:.0f} MB",
                    sources=["upload", "webcam"],
                    elem_id="st-video",
                )
                films = {example.path.parent for example in examples}
                address = gradio.Textbox(
                    label="or its address",
                    placeholder="https://...",
                    visible=offer.addresses,
                    max_length=2000,
                )
                actions = gradio.Textbox(
                    label="2. What do you look for?",
                    info="One action a line, or commas in between.",
                    placeholder="waving a hand\nclapping",
                    lines=2,
                )
                buttons = []
                if examples:
                    gradio.HTML('<p class="st-dim">No video at hand? Take a drawn one:</p>')
                    with gradio.Row():
                        buttons = [gradio.Button(e.title, size="sm") for e in examples]
                with gradio.Accordion("More options", open=False):
                    none_of = gradio.Textbox(
                        NONE_OF,
                        label="What else may people do?",
                        info="Never reported: these words keep the rest from being taken for "
                        "what you look for.",
                        lines=2,
                    )
                    model = gradio.Dropdown(
                        list(offer.models),
                        value=next(iter(offer.models)),
                        label="Model",
                        info="Larger ones are slower and better. puppet knows drawn people alone.",
                    )
                    detector = gradio.Dropdown(
                        list(offer.detectors),
                        value=offer.detectors[0],
                        label="Person detector",
                        visible=len(offer.detectors) > 1,
                    )
                    track_threshold = gradio.Slider(
                        LEAST_BOX, 0.9, 0.5, step=0.05, label="Follow people from a score of",
                        info="The person detector's: lower finds more people, and boxes "
                        "around nobody.",
                    )  # fmt: skip
                    with gradio.Row():
                        start = gradio.Number(0, label="From second", minimum=0, min_width=120)
                        end = gradio.Number(
                            0, label="To second (0: the end)", minimum=0, min_width=120
                        )
                    threshold = gradio.Slider(
                        0.05, 0.95, 0.5, step=0.05, label="Report from a score of",
                        info="Of an action: lower finds more, and more that is wrong. What has "
                        f"begun goes on while the score is at least {KEEP} of this.",
                    )  # fmt: skip
                    score_every = gradio.Slider(
                        0.1, 1, 0.5, step=0.1, label="How often to look (seconds)",
                        info="Shorter is slower and finds short actions.",
                    )  # fmt: skip
                    window = gradio.Slider(
                        0.5, 4, 2, step=0.5, label="Average over (seconds)",
                        info="Longer is steadier.",
                    )  # fmt: skip
                    min_seconds = gradio.Slider(
                        0, 5, 0.5, step=0.5, label="Leave out what is shorter than (seconds)"
                    )
                with gradio.Row():
                    run = gradio.Button("3. Find out", variant="primary")
                    cancel = gradio.Button("Cancel", variant="stop", visible=False)
            with gradio.Column(scale=3, min_width=320):
                outcome = gradio.HTML(view.nothing_yet(bool(examples)))
        token = gradio.Textbox(visible=False)
        timer = gradio.Timer(1, active=False)
        shown = [outcome, run, cancel, timer]

        def show(job: Job) -> list[Any]:
            """Of ``shown``."""
            active = job.active  # first: what ends from now on shows at the next tick
            return [
                view.outcome(jobs, job, len(offer.detectors)),
                gradio.Button(interactive=not active),
                gradio.Button(visible=active),
                gradio.Timer(active=active),
            ]

        def stopped(html: str) -> list[Any]:
            return [
                html, gradio.Button(interactive=True), gradio.Button(visible=False),
                gradio.Timer(active=False),
            ]  # fmt: skip

        def begin(known: str, path: str | None, address: str, *options: Any) -> list[Any]:
            before = jobs.find(known or "")
            if before is not None and before.active:  # a second click
                return [known, *show(before)]
            try:
                upload, name = video_of(path, address, offer, jobs.uploads)
                request = request_of(offer, name, address if upload is None else "", *options)
                job = jobs.submit(request, upload)
            except UserError as error:
                return ["", *stopped(view.refused(str(error)))]
            return [job.token, *show(job)]

        def look(known: str) -> list[Any]:
            job = jobs.find(known or "")
            if job is None:
                empty = view.nothing_yet(bool(examples)) if not known else view.unknown(jobs)
                return stopped(empty)
            return show(job)

        def stop(known: str) -> list[Any]:
            jobs.cancel(known or "")
            return look(known)

        def choose(example: Example) -> list[Any]:
            return [str(example.path), example.actions, example.none_of, example.model]

        options = [
            actions, none_of, model, detector, track_threshold, start, end, score_every, window,
            threshold, min_seconds,
        ]  # fmt: skip
        # Nothing of these is an API, and none waits for another user's.
        quiet: dict[str, Any] = {
            "api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None
        }  # fmt: skip
        run.click(begin, [token, video, address, *options], [token, *shown], **quiet).then(
            None, token, js=_TOKEN_IN_ADDRESS
        ).then(None, js=_GO_TO_OUTCOME)
        timer.tick(look, token, shown, **quiet)
        cancel.click(stop, token, shown, **quiet)
        # The token of the address is put into its field first, by the browser.
        blocks.load(None, None, token, js=_TOKEN_OF_ADDRESS).then(look, token, shown, **quiet).then(
            None, js=_GO_TO_OUTCOME
        )
        # After an example, whose model knows drawings alone, comes somebody's own video.
        gradio.on(
            [video.upload, video.stop_recording], lambda: next(iter(offer.models)), None, model,
            **quiet,
        )  # fmt: skip
        for button, example in zip(buttons, examples, strict=True):
            button.click(
                functools.partial(choose, example), None, [video, actions, none_of, model], **quiet
            )
    for block in blocks.blocks.values():
        folders = [jobs.uploads.resolve(), *films] if block is video else []
        _take_uploads_only(block, folders)
    return blocks


def _take_uploads_only(block: Any, folders: Sequence[Path]) -> None:
    """Keep Gradio from fetching or copying whatever a request names in the place of an upload.

    It does so for every field, a text as well.
    """
    take = block.async_move_resource_to_block_cache

    async def take_files(place: str | Path | None) -> str | None:
        if place is not None:
            file = Path(place).resolve()  # of an address nothing that exists
            if not any(file.is_relative_to(folder) for folder in folders):
                raise gradio.Error("an uploaded file expected")
        return await take(place)

    block.async_move_resource_to_block_cache = take_files
