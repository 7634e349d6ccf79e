"""Embeddings and scores of the backbone as a table: what classifiers of one's own are trained on."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from hsemotion_space.types import Analysis, FloatArray


def embedding_table(analysis: Analysis, source: str) -> pa.Table:
    """Return one row per face and frame in which the face was detected.

    ``embedding`` (D,) and ``scores`` (K,) are the outputs of the backbone, float32, neither smoothed nor
    scaled. ``source``, ``track_id`` and ``frame_index`` are those of the table of frames.
    """
    parts = [
        pa.table(
            {
                "source": [source] * len(track.times_s),
                "media_sha256": [analysis.media.sha256] * len(track.times_s),
                "frame_index": track.frame_index,
                "time_s": track.times_s,
                "track_id": np.full(len(track.times_s), track.track_id),
                "embedding": _lists(track.embeddings),
                "scores": _lists(track.scores),
            }
        )
        for track in (face.track for face in analysis.faces)
    ]
    return pa.concat_tables(parts).replace_schema_metadata(
        {"checkpoint_id": analysis.checkpoint.id, "checkpoint_sha256": analysis.checkpoint.sha256}
    )


def _lists(rows: FloatArray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(np.ascontiguousarray(rows, np.float32).ravel(), rows.shape[1])
