"""Build and launch the page."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

# Read by Gradio and the Hub client when they are imported: nothing about visitors leaves this server.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
# Read by uvicorn: by default it believes what any program on this machine writes into X-Forwarded-For.
os.environ.setdefault("FORWARDED_ALLOW_IPS", "")

import gradio as gr
from starlette.middleware import Middleware

from hsemotion_space import __version__
from hsemotion_space.environment import hide_environment, is_space
from hsemotion_space.feedback.consent import PROCESS
from hsemotion_space.feedback.record import FeedbackError
from hsemotion_space.feedback.service import Feedback, open_feedback
from hsemotion_space.hub.registry import list_checkpoints
from hsemotion_space.jobs import JobRunner
from hsemotion_space.jobs.gpu import open_gpu
from hsemotion_space.messages import Message
from hsemotion_space.operations.health import Deployment
from hsemotion_space.operations.monitoring import Metrics
from hsemotion_space.operations.startup import check_start
from hsemotion_space.settings import Settings
from hsemotion_space.ui.about import build_about
from hsemotion_space.ui.analyze import Shared, build_workspace, find_job
from hsemotion_space.ui.annotate import build_annotate
from hsemotion_space.ui.annotate.running import MOST_FILES
from hsemotion_space.ui.api import build_api
from hsemotion_space.ui.bodies import LONGEST_S
from hsemotion_space.ui.context import QUIET, AppContext
from hsemotion_space.ui.guard import LOCAL_HOSTS, Guard, GuardLimits
from hsemotion_space.ui.i18n import Language, catalog, gettext, gettext_lazy
from hsemotion_space.ui.live import build_live
from hsemotion_space.ui.my_data import build_my_data, build_receipt
from hsemotion_space.ui.picker import build_picker
from hsemotion_space.ui.probes import Probes
from hsemotion_space.ui.protocol import install
from hsemotion_space.ui.quotas import MB, SessionQuota, UploadLimits, UploadQuota
from hsemotion_space.ui.review import build_review
from hsemotion_space.ui.sign_in import can_sign_in, prepare_sign_in
from hsemotion_space.ui.temporary import SWEEP_EVERY_S, make_folder, sweep_for_ever
from hsemotion_space.ui.uploads import Uploads
from hsemotion_space.ui.viewer import serve_plotly

STYLE = Path(__file__).with_name("style.css")
SESSIONS_TOGETHER = 10_000  # beyond them Gradio drops the state of the oldest one
# so it takes dozens of networks to make another visitor lose theirs
SESSIONS_PER_CLIENT, SESSIONS_WINDOW_S = 300, 3600.0
JOB_GRACE_S, STOP_S = 4.0, 9.0  # of platforms, the shortest time from SIGTERM to SIGKILL is 10 s
POLL_S = 1.2  # in which every open page asks for its result
LOOPBACK = ("127.0.0.1", "localhost", "::1")

LEAD = """
# HSEmotion Space
Facial affect in pictures and clips: expression, valence and arousal, action units, compound expressions,
mimicry intensity.

<p class="fine">These models describe how a face <em>looks</em>. They do not know what a person feels, and
they are wrong more often for some people than for others. Do not use them on people at work or in education,
or for any decision about a person. Add only pictures of people who agree.</p>
"""
PROBLEM = "This server does not accept corrections. {problem}"
LOST = Message(
    (
        "This Space would lose corrections when it restarts. Its operator must set"
        " HSEMOTION_FEEDBACK_REPO, HSEMOTION_FEEDBACK_SECRET and HF_TOKEN, or"
        " HSEMOTION_FEEDBACK_DATABASE."
    ),
    code="space_storage",
)
PRIVACY = """
<p class="fine">This server analyzes your files and deletes them within {minutes} minutes. It identifies
nobody and saves nothing except corrections that you send and agree to have saved. Version {version}.</p>
"""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Server:
    """A running page; ``close`` stops it with its worker and deletes what visitors added."""

    demo: gr.Blocks
    runner: JobRunner
    feedback: Feedback | None
    folder: Path
    url: str
    metrics: Metrics | None = None

    def close(self) -> None:
        """Let running jobs end, then publish what waits, both within limits, and stop; safe to call twice."""
        until_s = time.monotonic() + STOP_S
        if self.runner.finish(JOB_GRACE_S):
            time.sleep(POLL_S)
        self.demo.server.config.timeout_graceful_shutdown = 1  # every open page holds a connection
        self.demo.close(verbose=False)
        if self.feedback is not None:
            self.feedback.close(max(until_s - time.monotonic(), 1.0))
        self.runner.close()
        if self.metrics is not None:
            self.metrics.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Page(gr.Blocks):
    """Blocks that refuse invalid values with a sentence, where Gradio would report a server error."""

    async def preprocess_data(self, *given: Any, **options: Any) -> list[Any]:
        """Return what a function is called with."""
        # of version 0.1, which had no fifth value
        if given[0].api_name == "submit_feedback" and len(given[1]) == 4:
            given = (given[0], [*given[1], ""], *given[2:])
        try:
            values: list[Any] = await super().preprocess_data(*given, **options)
        except gr.Error as error:  # a component says what is wrong
            error.print_exception = False
            raise
        except OSError:  # no room, for one
            raise
        except Exception as error:
            text = gettext("The request has values that this function does not accept. Reload the page.")
            raise gr.Error(text, print_exception=False) from error
        return values


def build(context: AppContext) -> gr.Blocks:
    """Return the page."""
    settings = context.settings
    minutes = round((settings.results_ttl_s + LONGEST_S + SWEEP_EVERY_S) / 60)
    with Page(
        title="HSEmotion Space", analytics_enabled=False, delete_cache=(60, int(settings.results_ttl_s))
    ) as demo:
        gr.Markdown(gettext_lazy(LEAD), elem_classes="lead")
        with gr.Row(elem_classes="shared", equal_height=False):
            picker = build_picker(context)
            with gr.Column(scale=4, min_width=280):
                agreed = gr.Checkbox(
                    False,
                    label=gettext_lazy(PROCESS.title),
                    info=gettext_lazy(PROCESS.text),
                    elem_id="agreed",
                )
        shared = Shared(picker, agreed, build_receipt())
        with gr.Tabs():
            with gr.Tab(gettext_lazy("Analyze"), id="analyze"):
                workspace = build_workspace(context, shared)
            with gr.Tab(gettext_lazy("Live"), id="live") as live_tab:
                build_live(context, shared, live_tab)
            with gr.Tab(gettext_lazy("Annotate"), id="annotate"):
                build_annotate(context, shared, workspace.result.shown)
            if settings.feedback == "on":
                with gr.Tab(gettext_lazy("My data"), id="data") as tab:
                    build_my_data(context, tab, shared.receipt)
            if context.feedback is not None and (settings.review_token or can_sign_in(settings)):
                with gr.Tab(gettext_lazy("Review"), id="review"):
                    build_review(context)
            with gr.Tab(gettext_lazy("About"), id="about") as about:
                build_about(context, about, minutes)
        build_api(context)
        known = [workspace.job, workspace.saved_job, picker.choice]
        demo.load(lambda *values: find_job(context, workspace, *values), known, workspace.outputs, **QUIET)
        if context.problem:  # a text with braces cannot be fixed
            problem = context.problem.replace("{", "(").replace("}", ")")
            gr.Markdown(gettext_lazy(PROBLEM, problem=problem), elem_classes="lead")
        gr.Markdown(gettext_lazy(PRIVACY, minutes=minutes, version=__version__), elem_classes="lead")
    demo.queue(max_size=32, default_concurrency_limit=4, api_open=False)
    return cast("gr.Blocks", demo)


def theme() -> gr.themes.Base:
    """Return the theme; system fonts, so that no font is fetched from elsewhere."""
    fonts = ("system-ui", "-apple-system", "Segoe UI", "sans-serif")
    base = gr.themes.Default(
        primary_hue="indigo", neutral_hue="slate", font=fonts, font_mono=("ui-monospace", "monospace")
    )
    return base.set(  # a step from Gradio's own where its contrast is below 4.5, of borders 3
        block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300",
        body_text_color_subdued="*neutral_500",
        checkbox_border_color="*neutral_500", checkbox_border_color_dark="*neutral_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400", button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700", button_primary_border_color="*primary_600",
        button_primary_border_color_hover="*primary_700", button_cancel_background_fill="#dc2626",
        button_cancel_background_fill_hover="#b91c1c",
    )  # fmt: skip


def launch(settings: Settings, token: str = "", block: bool = True) -> Server:
    """Serve the page.

    Args:
        settings: of the deployment.
        token: for publishing corrections on the Hub.
        block: return only when the page is stopped.

    Raises:
        CheckpointError: if there is no checkpoint that can be used.
        SettingsError: if the port cannot be used.
        OSError: if there is no room for temporary files.
    """
    for check in check_start(settings).values():
        log.log(logging.WARNING if check.state == "failing" else logging.INFO, "%s", check.reason)
    checkpoints = list_checkpoints(settings.checkpoint_roots)
    gpu = open_gpu(settings)
    # before anything is made that must be deleted again
    stop = _stop_on_signal() if block else threading.Event()
    hide_environment()
    install()
    prepare_sign_in(settings)
    folder = make_folder()
    uploads = Uploads(folder / "uploads", folder / "claims")
    os.environ["GRADIO_TEMP_DIR"] = str(uploads.folder)
    runner = JobRunner(settings, root=folder, gpu=gpu)
    feedback, problem = _open(settings, token)
    demo = build(AppContext(settings, runner, checkpoints, folder / "results", uploads, feedback, problem))
    limits = _limits(settings, uploads.folder)
    deployment = Deployment(settings, runner, folder, feedback, problem)
    metrics = Metrics(deployment) if settings.metrics_token else None
    middleware = [
        Middleware(Probes, deployment=deployment, metrics=metrics),
        Middleware(Guard, limits=limits, script=serve_plotly()),
        Middleware(Language),
    ]
    _, url, _ = demo.launch(
        server_name=settings.host, server_port=settings.port, prevent_thread_lock=True, quiet=True,
        share=False, show_error=False,
        max_file_size=settings.limits.clip_bytes, strict_cors=True, enable_monitoring=False,
        run_history=False, footer_links=[],
        ssr_mode=False, state_session_capacity=SESSIONS_TOGETHER, theme=theme(), css_paths=STYLE,
        i18n=catalog(),
        app_kwargs={"middleware": middleware, "docs_url": None, "redoc_url": None, "openapi_url": None},
    )  # fmt: skip
    server = Server(demo, runner, feedback, folder, url, metrics)
    atexit.register(server.close)
    threading.Thread(
        target=sweep_for_ever, args=(folder, settings.results_ttl_s + LONGEST_S), name="sweeper", daemon=True
    ).start()
    print(f"HSEmotion Space is running on {url}", flush=True)  # noqa: T201  the one line a user waits for
    if block:
        while not stop.wait(1):
            pass
        server.close()
    return server


def _limits(settings: Settings, uploads: Path) -> GuardLimits:
    """Return what the door lets through."""
    window_s = settings.results_ttl_s + LONGEST_S + SWEEP_EVERY_S  # after which a file is deleted for certain
    limits = UploadLimits(
        window_s, settings.upload_mb_per_client * MB, settings.upload_mb * MB, settings.free_mb * MB
    )
    hosts = {host.strip().lower() for host in settings.hosts.split(",") if host.strip()}
    local = settings.host.strip("[]") in LOOPBACK
    return GuardLimits(
        upload_bytes=max(settings.limits.clip_bytes, settings.limits.image_bytes) + MB,
        files=MOST_FILES,
        hosts=frozenset(hosts | LOCAL_HOSTS) if hosts or local else frozenset(),
        uploads=UploadQuota(uploads, limits),
        sessions=SessionQuota(SESSIONS_PER_CLIENT, SESSIONS_WINDOW_S),
        sign_in=can_sign_in(settings),
    )


def _open(settings: Settings, token: str) -> tuple[Feedback | None, str]:
    """Return where corrections go, or why they are not taken, in which case the page works all the same."""
    if settings.feedback == "off":
        return None, ""
    published = settings.feedback_repo and settings.feedback_secret and token
    if is_space() and not published and not settings.feedback_database:
        log.warning("Corrections are not taken: %s", LOST)
        return None, LOST
    try:
        feedback = open_feedback(settings, token)
    except FeedbackError as error:
        log.warning("Corrections are not taken: %s", error)
        return None, error.message
    for notice in feedback.store.notices:
        log.warning("%s", notice)
    if feedback.publisher is not None:
        feedback.publisher.start()
    return feedback, ""


def _stop_on_signal() -> threading.Event:
    """Return an event that SIGINT and SIGTERM set."""
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return stop
