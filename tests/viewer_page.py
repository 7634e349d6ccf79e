"""A small page around the linked viewer, for its test in a browser: ``viewer_page.py PORT FOLDER``."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import numpy as np
from analysis_makers import make_analysis
from media_makers import write_clip
from PIL import Image
from starlette.middleware import Middleware

from hsemotion_space.edits import Edits, Marker
from hsemotion_space.types import Analysis, FaceResult
from hsemotion_space.ui.inputs import read_event
from hsemotion_space.ui.viewer import (
    ViewerValue,
    as_text,
    build_viewer,
    media_url,
    read_label_key,
    read_selection,
    viewer_value,
)

FRAMES, RATE, WIDTH, HEIGHT, STRIDE = 40, 10, 480, 320, 8
MANY = 30_000


def level(number: int) -> int:
    """Return the gray level that tells the number of a frame."""
    return 20 + 5 * number


def placed(face: FaceResult, frames: int) -> FaceResult:
    """Return the face with a box whose left edge tells the number of its frame."""
    rows = np.round(face.track.times_s * RATE).astype(int) % frames
    left, top = 20.0 + STRIDE * rows, 60.0 + 120 * (face.track.track_id - 1)
    boxes = np.stack([left, np.full(len(rows), top), left + 90, np.full(len(rows), top + 90)], 1).astype(
        np.float32
    )
    return replace(face, track=replace(face.track, boxes_xyxy=boxes))


def numbered(frames: int, seed: int = 0, faces: int = 2) -> Analysis:
    """Return an analysis of the numbered clip with the exact times of its frames."""
    made = make_analysis(faces=faces, frames=frames, seed=seed)
    exact = np.arange(frames) / RATE
    rows = {time: row for row, time in enumerate(made.frame_times_s.tolist())}

    def moved(face: FaceResult) -> FaceResult:
        times = exact[[rows[time] for time in face.track.times_s.tolist()]]
        lines = tuple(
            replace(line, times_s=times if len(line.times_s) > 1 else times[:1]) for line in face.timelines
        )
        return placed(replace(face, track=replace(face.track, times_s=times), timelines=lines), FRAMES)

    media = replace(made.media, sha256="0" * 64, width=WIDTH, height=HEIGHT, duration_s=frames / RATE)
    return replace(made, media=media, frame_times_s=exact, faces=tuple(moved(face) for face in made.faces))


def write_media(folder: Path) -> tuple[Path, Path, Path]:
    """Write a clip whose brightness tells the frame, a picture, and a file that no browser can play."""
    clip, picture, broken = folder / "numbered.mp4", folder / "picture.png", folder / "broken.mp4"
    write_clip(
        clip, [np.full((HEIGHT, WIDTH, 3), level(number), np.uint8) for number in range(FRAMES)], rate=RATE
    )
    Image.fromarray(np.random.default_rng(0).integers(60, 200, (480, 640, 3), np.uint8)).save(picture)
    broken.write_bytes(b"not a clip")
    return clip, picture, broken


def edited(analysis: Analysis) -> Analysis:
    """Return the analysis with a cut, a name, a marked neutral, an event and an exclusion."""
    face = analysis.faces[0]
    lines = tuple(
        replace(line, neutral=line.values[0]) if line.task.kind != "one_of" and len(line.values) > 1 else line
        for line in face.timelines
    )
    marks = (Marker("event", 0.5, 0.5, "smile"), Marker("exclusion", 3.0, 3.5))
    edits = Edits({1: "Anna"}, {}, {1: 0.0}, marks)
    return replace(analysis, faces=(replace(face, timelines=lines),), edits=edits, cuts_s=np.array([1.5]))


HOSTILE = "<img src=x onerror='window.hit = 1'>"


def hostile(value: ViewerValue) -> ViewerValue:
    """Return the value with markup for every text that is shown."""
    for task in value["tasks"]:
        task["title"] = task["provenance"] = task["band"] = HOSTILE
        for label in task["labels"]:
            label["short"] = label["description"] = HOSTILE
            label["name"] += HOSTILE
    for face in value["faces"]:
        face["thumbnail"] = face["name"] = HOSTILE
        for line in face["lines"].values():
            line["right"] = [HOSTILE] * 12
    value["markers"] = [{"kind": "event", "start": 1, "end": 1, "label": HOSTILE}]
    value["warnings"] = [{"title": HOSTILE, "faces": [1], "details": [HOSTILE]}]
    return value


def build(folder: Path) -> gr.Blocks:
    clip, picture, broken = write_media(folder)
    gr.set_static_paths([folder])
    url = media_url(clip)
    values = {
        "clip": lambda: viewer_value(numbered(FRAMES), url),
        "again": lambda: viewer_value(numbered(FRAMES, seed=1), url, numbered(FRAMES, seed=1)),
        "one": lambda: viewer_value(numbered(FRAMES, faces=1), url + "#one"),
        "many": lambda: viewer_value(numbered(MANY), url + "#many"),
        "edited": lambda: viewer_value(edited(numbered(FRAMES, faces=1)), url + "#edited"),
        "broken": lambda: viewer_value(numbered(FRAMES), media_url(broken)),
        "picture": lambda: viewer_value(make_analysis(kind="image"), media_url(picture)),
        "hostile": lambda: hostile(viewer_value(numbered(FRAMES, faces=1), url + "#hostile")),
        "nobody": lambda: viewer_value(make_analysis(faces=0), url + "#nobody"),
    }

    def told(event: gr.EventData) -> str:
        chosen = read_selection(event)
        stretch = None if chosen is None else [chosen.start_s, chosen.end_s, chosen.face]
        return json.dumps(
            {"selection": stretch, "key": read_label_key(event), "time": getattr(event, "time", None)}
        )

    def brought(event: gr.EventData) -> str:
        return json.dumps(read_event(event))

    with gr.Blocks(title="Viewer") as demo:
        viewer = build_viewer()
        with gr.Row():
            for name, make in values.items():
                gr.Button(name).click(lambda make=make: as_text(make()), None, viewer, show_progress="hidden")
            gr.Button("nothing").click(lambda: None, None, viewer, show_progress="hidden")
        for kind, tell in (("label_key", told), ("seek", told), ("edit", brought)):
            heard = gr.Textbox(label=kind, elem_id=f"heard-{kind}")
            getattr(viewer, kind)(tell, None, heard, show_progress="hidden")
    return demo


if __name__ == "__main__":
    from hsemotion_space.ui.guard import Guard, GuardLimits

    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    build(Path(sys.argv[2])).launch(
        server_port=int(sys.argv[1]), run_history=False, footer_links=[], quiet=True,
        app_kwargs={"middleware": [Middleware(Guard, limits=GuardLimits(upload_bytes=2**20))]},
    )  # fmt: skip
