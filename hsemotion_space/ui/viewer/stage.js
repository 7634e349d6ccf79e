// The picture: video or image with the faces on a canvas above it, and the plane of two continuous labels.

const TRAIL_S = 2;
const SEEK_PAST_S = 0.001; // a seek lands inside a frame, not on its edge
const FRAME_COMES_MS = 100; // after a seek
const QUADRANTS = [['excited', 1, 1], ['distressed', -1, 1], ['gloomy', -1, -1], ['calm', 1, -1]];
const calm = window.matchMedia('(prefers-reduced-motion: reduce)');

/** Fit the pixels of a canvas to its place on the page; return its context, in CSS pixels, and its size. */
function prepared(canvas) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const [across, down] = [Math.round(width * scale), Math.round(height * scale)];
  if (canvas.width !== across || canvas.height !== down) Object.assign(canvas, { width: across, height: down });
  const context = canvas.getContext('2d');
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/**
 * Wire up the video or image.
 *
 * `hooks.time(time)` gets the presentation time of each frame on screen, `hooks.aim(time)` the target of a seek, `hooks.state()` is
 * called when playback starts or stops, and `hooks.problem(text)` when the media cannot be shown.
 */
function makeStage(root, hooks) {
  const [video, image, canvas] = ['video', 'img', 'canvas'].map((tag) => root.querySelector(`.stage ${tag}`));
  let media = null;
  let playable = false;
  let time = 0;
  let target = null; // of a seek that is under way
  let offset = null; // what this browser calls the time of the first frame

  const report = (seconds) => {
    time = seconds;
    hooks.time(time);
  };
  const hasFrames = 'requestVideoFrameCallback' in video;
  const onFrame = (_now, frame) => {
    if (offset === null) offset = video.currentTime === 0 ? frame.mediaTime : 0;
    if (!video.seeking) target = null;
    report(frame.mediaTime - offset);
    video.requestVideoFrameCallback(onFrame);
  };
  const poll = () => {
    if (media?.kind !== 'clip' || !playable) return;
    report(video.currentTime);
    if (!video.paused) requestAnimationFrame(poll);
  };
  if (hasFrames) video.requestVideoFrameCallback(onFrame);
  else ['play', 'loadeddata', 'seeked'].forEach((name) => video.addEventListener(name, poll));

  video.addEventListener('loadedmetadata', () => {
    playable = true;
    hooks.state();
  });
  video.addEventListener('seeked', () => {
    if (video.seeking) return; // the next one has begun already
    const reached = target;
    setTimeout(() => { // by then its frame was reported, unless it was on screen before
      if (target !== reached) return;
      target = null;
      report(time);
    }, FRAME_COMES_MS);
    hooks.state();
  });
  ['play', 'pause', 'ended'].forEach((name) => video.addEventListener(name, () => hooks.state()));
  video.addEventListener('error', () => {
    if (!video.getAttribute('src')) return;
    playable = false;
    hooks.problem(gettext('This browser cannot play this clip. The timelines still work.'));
  });
  image.addEventListener('load', () => hooks.time(0));
  image.addEventListener('error', () => image.getAttribute('src') && hooks.problem(gettext('This browser cannot show this picture.')));

  return {
    video,
    image,
    get time() {
      return target ?? time;
    },
    get playable() {
      return playable;
    },
    get playing() {
      return playable && !video.paused && !video.ended;
    },
    load(next) {
      if (media && media.url === next.url && media.id === next.id) return;
      [media, playable, time, target, offset] = [next, false, 0, null, null];
      const clip = next.kind === 'clip';
      video.hidden = !clip;
      image.hidden = clip;
      root.querySelector('.stage').style.setProperty('--aspect', String(next.width / next.height || 1));
      video.pause();
      const [shown, other] = clip ? [video, image] : [image, video];
      other.removeAttribute('src');
      if (next.url) shown.setAttribute('src', next.url);
      else shown.removeAttribute('src');
      if (!clip || !next.url) video.load();
      if (!next.url) {
        hooks.problem(gettext('This session has no media. Add the same file to see it here.'));
        report(0);
      }
    },
    seek(seconds, last) {
      const goal = clamp(seconds, 0, last);
      if (playable) {
        target = goal;
        video.currentTime = goal + (offset ?? 0) + SEEK_PAST_S;
        hooks.aim(goal);
      } else report(goal);
    },
    toggle() {
      if (!playable) return;
      if (video.paused || video.ended) video.play().catch(() => hooks.state());
      else video.pause();
    },
    paint(faces) {
      paintFaces(canvas, faces);
    },
    /** Give the drawn time again, after a change of size or of choices. */
    refresh() {
      hooks.time(time);
    },
  };
}

/** Draw boxes (in shares of the picture) with their captions: above, inside or below, where no other caption is. */
function paintFaces(canvas, faces) {
  const { context, width, height } = prepared(canvas);
  const size = clamp(width / 36, 11, 16);
  const taken = [];
  context.font = `600 ${size}px ${getComputedStyle(canvas).fontFamily}`;
  context.textBaseline = 'middle';
  for (const face of faces) {
    const [left, top, right, bottom] = face.box.map((share, side) => share * (side % 2 ? height : width));
    const line = face.chosen ? 3 : 2;
    for (const [color, extra] of [['#000', 2], [face.color, 0]]) {
      [context.strokeStyle, context.lineWidth] = [color, line + extra];
      context.strokeRect(left, top, right - left, bottom - top);
    }
    const text = face.text ? `${face.number}  ${face.text}` : String(face.number);
    const across = Math.min(context.measureText(text).width + size * 0.7, width);
    const down = size * 1.5;
    const x = clamp(left, 0, width - across);
    const places = [top - down, top, bottom, bottom - down].map((y) => clamp(y, 0, height - down));
    const hits = (y) => taken.some((other) => x < other.x + other.across && other.x < x + across && Math.abs(y - other.y) < down);
    const y = places.find((place) => !hits(place)) ?? places[0];
    taken.push({ x, y, across });
    context.fillStyle = face.color;
    context.fillRect(x, y, across, down);
    context.fillStyle = face.ink;
    context.fillText(text, x + size * 0.35, y + down / 2, across - size * 0.7);
  }
}

/** Draw the plane of two labels with one numbered dot per face and the trail of the chosen one. */
function paintPlane(canvas, data, task, faces, chosen, time) {
  const { context, width, height } = prepared(canvas);
  const style = getComputedStyle(canvas);
  const [ink, faint] = [style.color, style.getPropertyValue('--border-color-primary') || '#888'];
  const radius = Math.min(width, height) / 2 - 16;
  if (radius <= 0) return; // it is not laid out yet
  const place = (x, y) => [width / 2 + x * radius, height / 2 - y * radius];
  const stroke = (color, ...points) => {
    context.strokeStyle = color;
    context.beginPath();
    points.forEach(([x, y], number) => (number ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.stroke();
  };
  context.lineWidth = 1;
  stroke(faint, place(-1, 0), place(1, 0));
  stroke(faint, place(0, -1), place(0, 1));
  context.strokeStyle = faint;
  context.beginPath();
  context.arc(width / 2, height / 2, radius, 0, 2 * Math.PI);
  context.stroke();
  Object.assign(context, { fillStyle: ink, textAlign: 'center', textBaseline: 'middle', font: `italic 11px ${style.fontFamily}` });
  for (const [word, right, up] of QUADRANTS) {
    context.textAlign = right > 0 ? 'left' : 'right';
    context.fillText(gettext(word), ...place(0.1 * right, 0.6 * up));
  }
  context.textAlign = 'center';
  context.font = `11px ${style.fontFamily}`;
  context.fillText(task.labels[1].name, width / 2, 8);
  context.textAlign = 'right';
  context.fillText(`${task.labels[0].name} \u2192`, width - 2, height / 2 + 12);
  context.textAlign = 'center';

  const at = (face, row) => face.lines[task.name]?.values.map((column) => column[row]) ?? [NaN, NaN];
  const row = frameFor(data, time);
  if (row < 0) return;
  if (data.clip && !calm.matches) {
    for (let from = Math.max(1, frameAt(data.times, time - TRAIL_S)); from <= row; from++) {
      const [before, after] = [at(chosen, from - 1), at(chosen, from)];
      if (![...before, ...after].every(Number.isFinite)) continue;
      context.globalAlpha = clamp(1 - (time - data.times[from]) / TRAIL_S, 0.08, 1);
      context.lineWidth = 2;
      stroke(chosen.color, place(...before), place(...after));
    }
    context.globalAlpha = 1;
  }
  for (const face of [...faces.filter((other) => other !== chosen), chosen]) {
    const point = at(face, row);
    if (!point.every(Number.isFinite)) continue;
    const [x, y] = place(...point);
    context.fillStyle = face.color;
    context.beginPath();
    context.arc(x, y, face === chosen ? 9 : 7, 0, 2 * Math.PI);
    context.fill();
    context.fillStyle = face.ink;
    context.fillText(String(face.number), x, y + 0.5);
  }
}
