"""One frame of the camera: checked, analyzed, told as JSON.

Nothing of a frame is left here when its answer is given.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from typing import Final, TypedDict

import gradio as gr

from hsemotion_space.analysis.image_quality import quality
from hsemotion_space.hub.manifest import Checkpoint, CheckpointError
from hsemotion_space.hub.registry import find_checkpoint
from hsemotion_space.jobs import JobError, JobStatus
from hsemotion_space.messages import MessageError
from hsemotion_space.settings import SettingsError
from hsemotion_space.types import Analysis
from hsemotion_space.ui.context import PICK_ONE, AppContext
from hsemotion_space.ui.i18n import gettext, translate
from hsemotion_space.ui.inputs import read_event
from hsemotion_space.ui.viewer import viewer_value
from hsemotion_space.ui.viewer.payload import LineEntry, TaskEntry

MOST_BYTES: Final = 190_000  # of a frame; as text it still fits into a request
MOST_TEXT: Final = (MOST_BYTES + 2) // 3 * 4
JPEG: Final = b"\xff\xd8\xff"
WAIT_S: Final = 3.0
LOOK_EVERY_S: Final = 0.1
UNUSABLE: Final = "This camera picture cannot be used."


class LiveFace(TypedDict):
    """One face.

    ``box`` is left, top, right, bottom in shares of the frame, ``against`` the most serious thing that speaks
    against its numbers, and ``lines`` are its values by the names of the tasks.
    """

    box: list[float | None]
    against: str
    lines: dict[str, LineEntry]


class Answer(TypedDict, total=False):
    """What the browser is told about one frame.

    ``sequence`` is the number that the browser gave it, 0 if there was none. Then there are either
    ``checkpoint``, ``tasks`` and ``faces``, or ``wait`` with the reason why there is nothing yet, or ``stop``
    with the reason why it is no use to go on. ``job`` beside ``wait`` is what the browser may ask for in
    place of another frame, as weights are being fetched for it.
    """

    sequence: int
    checkpoint: str
    tasks: list[TaskEntry]
    faces: list[LiveFace]
    wait: str
    job: str
    stop: str


class FrameError(MessageError, ValueError):
    """What came is no frame; the message can be shown."""


def answer(context: AppContext, event: gr.EventData, checkpoint: object, agreed: object, client: str) -> str:
    """Analyze the frame of a ``frame`` event and return an :class:`Answer` as JSON.

    Args:
        context: of the page.
        event: with ``sequence``, a number that rises, and either ``frame``, a JPEG picture in base64, or
            ``job``; unchecked.
        checkpoint: id of the one to use; unchecked.
        agreed: whether the visitor agrees to the analysis; unchecked.
        client: the network that the frame came from.
    """
    given = read_event(event)
    reply: Answer = {"sequence": read_sequence(given.get("sequence"))}
    if agreed is not True:
        reply["stop"] = gettext("You withdrew your consent, so the camera was stopped.")
    else:
        try:
            job = read_job(given.get("job"))
            job = job or context.runner.analyze_frame(
                read_frame(given.get("frame")), _known(context, checkpoint).id, client=client
            )
            reply.update(_analyzed(context, job))
        except JobError as error:
            reply["wait"] = translate(error)
        except (FrameError, SettingsError, CheckpointError) as error:
            reply["stop"] = translate(error)
    return json.dumps(reply, separators=(",", ":"), allow_nan=False)


def read_sequence(value: object) -> int:
    """Return the number of a frame; 0 for what is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**53 else 0


def read_frame(value: object) -> bytes:
    """Return the JPEG file of a frame.

    Raises:
        FrameError: if it is no text, too large, not in base64, or begins as no JPEG file does.
    """
    if not isinstance(value, str) or not value or len(value) > MOST_TEXT:
        raise FrameError(UNUSABLE)
    try:
        frame = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FrameError(UNUSABLE) from error
    if not frame.startswith(JPEG) or len(frame) > MOST_BYTES:
        raise FrameError(UNUSABLE)
    return frame


def read_job(value: object) -> str:
    """Return the id of a job; an empty text for what is none."""
    return value if isinstance(value, str) and re.fullmatch("[0-9a-f]{32}", value) else ""


def _known(context: AppContext, checkpoint: object) -> Checkpoint:
    if not isinstance(checkpoint, str):
        raise SettingsError(PICK_ONE)
    # reading all manifests takes too long for a frame
    listed = next((one for one in context.checkpoints if one.id == checkpoint), None)
    return listed or find_checkpoint(context.settings.checkpoint_roots, checkpoint)


def _analyzed(context: AppContext, job: str) -> Answer:
    """Return what became of a frame within WAIT_S.

    Raises:
        JobError: if its job is not there.
        CheckpointError: if the checkpoint is gone.
    """
    status = _watch(context, job)
    if status.analyses:
        analysis = status.analyses[0]
        return seen(analysis, _known(context, analysis.checkpoint.id))
    if status.state == "failed":
        return {"stop": translate(status.message)}
    if status.phase == "download":
        return {
            "wait": gettext("Downloading the weights: {done} MB", done=f"{status.done / 1e6:.1f}"),
            "job": job,
        }
    return {"wait": gettext("The server is busy.")}


def _watch(context: AppContext, job: str) -> JobStatus:
    """Return a finished job's state, or that after WAIT_S; slow jobs are canceled unless they download."""
    until_s = time.monotonic() + WAIT_S
    for status in context.runner.watch(job, LOOK_EVERY_S):
        if status.finished or time.monotonic() > until_s:
            break
    if not status.finished and status.phase != "download":
        context.runner.cancel(job)
    return status


def seen(analysis: Analysis, checkpoint: Checkpoint) -> Answer:
    """Return what is shown of the analysis of a frame: tasks with a value per frame, and faces with a box."""
    value = viewer_value(analysis, "")
    tasks = [task for task in value["tasks"] if task["scope"] == "frame"]
    names = {task["name"] for task in tasks}
    flags = {face.track_id: face.flags for face in quality(analysis, checkpoint.input)}
    faces: list[LiveFace] = [
        {
            "box": box,
            "against": translate(flags[face["number"]][0].text) if flags[face["number"]] else "",
            "lines": {name: line for name, line in face["lines"].items() if name in names},
        }
        for face in value["faces"]
        if (box := face["boxes"][0]) is not None
    ]
    return {"checkpoint": checkpoint.id, "tasks": tasks, "faces": faces}
