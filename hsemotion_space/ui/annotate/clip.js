// The clip of an annotator: presentation times of its frames, and the outline of the face that is asked about.

/** Call back with the presentation time of every frame that is shown, the first frame of the clip being at 0; returns what gives the browser's name of 0. */
function watchFrames(video, onTime) {
  let offset = null;
  video.addEventListener('loadstart', () => (offset = null));
  const onFrame = (_now, frame) => {
    if (offset === null) offset = video.currentTime === 0 ? frame.mediaTime : 0;
    onTime(frame.mediaTime - offset);
    if (video.isConnected) video.requestVideoFrameCallback(onFrame);
  };
  if ('requestVideoFrameCallback' in video) video.requestVideoFrameCallback(onFrame);
  else video.addEventListener('timeupdate', () => onTime(video.currentTime));
  return () => offset ?? 0;
}

/** Outline the face at a time. */
function moveOutline(outline, boxes, time) {
  const box = boxes.findLast(([moment]) => moment <= time + 0.02) ?? boxes[0];
  const [left, top, right, bottom] = box.slice(1).map((share) => 100 * share);
  Object.assign(outline.style, { left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%` });
  outline.hidden = false;
}

/** Show a text, or nothing in its place. */
function tellIn(node, text) {
  node.textContent = text;
  node.hidden = !text;
}
