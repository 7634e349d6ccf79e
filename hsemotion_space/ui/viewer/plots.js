// Timelines on canvases, what stands beside a timeline, and the marks that lie above it.

const MARGIN = { l: 52, r: 12, t: 6, b: 24 }; // fixed, so that all timelines align and a place is a time
const DASHES = ['0', '8', '2', '8,3,2,3', '13,4', '2,6', '13,3,2,3', '13,3,2,3,2,3']; // in px, as in SVG
const MOST_BANDS = 2; // of one timeline
const BUCKET_PX = 3; // a line has its lowest and its highest value in each
const CELL_PX = 3; // least width of a shade
const MOST_MARKERS = 40; // of one timeline
const MARKER_COLORS = { event: '#6366f1', exclusion: '#dc2626' };
const SHADES = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]];
const LINES_HEIGHT = 150;
const LINES_EDGE = 4; // above the highest and below the lowest value
const ROW_HEIGHT = 16;
const MOST_TICKS = 7;
const NEAR_PX = 14; // of a line, for its value to be shown

/** Make an element; children that are texts become text nodes, never markup. */
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function makeButton(text, press, attributes = {}) {
  const button = make('button', { type: 'button', ...attributes }, text);
  button.addEventListener('click', press);
  return button;
}

/** Make a button that is on or off. */
function makeToggle(text, on, press) {
  return makeButton(text, press, { 'aria-pressed': String(on) });
}

/** Replace buttons without losing the focus of the one that was pressed. */
function refill(container, buttons) {
  const place = [...container.children].indexOf(document.activeElement);
  container.replaceChildren(...buttons);
  if (place >= 0) container.children[place]?.focus();
}

const colorOf = (view, face, label) => (view.single ? label.color : face.color);
const dashOf = (column) => DASHES[column % DASHES.length];
const dashesOf = (column) => (dashOf(column) === '0' ? [] : dashOf(column).split(',').map(Number));
const heightOf = (task) => (isHeat(task) ? ROW_HEIGHT * task.labels.length : LINES_HEIGHT) + MARGIN.t + MARGIN.b;
const shareOf = (task, value) => (value - task.low) / (task.high - task.low);
const depthOf = (task, value) => MARGIN.t + LINES_EDGE + (1 - shareOf(task, value)) * (LINES_HEIGHT - 2 * LINES_EDGE);

/** Return the color of a share from 0 to 1. */
function shadeOf(share) {
  const place = clamp(share, 0, 1) * (SHADES.length - 1);
  const low = Math.min(Math.floor(place), SHADES.length - 2);
  const mixed = SHADES[low].map((part, index) => Math.round(part + (place - low) * (SHADES[low + 1][index] - part)));
  return `rgb(${mixed.join(',')})`;
}

/** Return round times in a range, with their texts. */
function ticksOf([from, to]) {
  const rough = (to - from) / MOST_TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  const first = Math.ceil(from / step - 1e-9);
  const count = Math.floor(to / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, place) => [step * (first + place), `${(step * (first + place)).toFixed(digits)} s`]);
}

/** Draw a frame-level task into a canvas: no more than its pixels can show. */
function drawTimeline(canvas, data, task, view) {
  canvas.style.height = `${heightOf(task)}px`;
  const { context, width, height } = prepared(canvas);
  const style = getComputedStyle(canvas);
  const inner = width - MARGIN.l - MARGIN.r;
  const frame = {
    context, inner, bottom: height - MARGIN.b, ink: style.color, faint: style.getPropertyValue('--border-color-primary') || '#888',
    x: (time) => MARGIN.l + ((time - view.range[0]) / (view.range[1] - view.range[0])) * inner,
  };
  context.font = `11px ${style.fontFamily}`;
  context.textBaseline = 'middle';
  drawAxes(frame, task, view.range);
  context.save();
  context.beginPath();
  context.rect(MARGIN.l, 0, inner, frame.bottom);
  context.clip();
  for (const [start, end] of view.chosen.gaps) fillTimes(frame, start, end, 'rgba(127,127,127,0.22)');
  if (isHeat(task)) drawShades(frame, data, task, view);
  else drawLines(frame, data, task, view);
  drawMarks(frame, data, view.range);
  context.restore();
}

function fillTimes({ context, x, bottom }, start, end, color) {
  context.fillStyle = color;
  context.fillRect(x(start), MARGIN.t, x(end) - x(start), bottom - MARGIN.t);
}

function strokePath({ context }, color, ...points) {
  context.strokeStyle = color;
  context.beginPath();
  points.forEach(([x, y], place) => (place ? context.lineTo(x, y) : context.moveTo(x, y)));
  context.stroke();
}

function drawAxes(frame, task, range) {
  const { context, x, inner, bottom, ink, faint } = frame;
  Object.assign(context, { fillStyle: ink, lineWidth: 1, textAlign: 'center' });
  for (const [time, text] of ticksOf(range)) {
    if (!isHeat(task)) strokePath(frame, faint, [x(time), MARGIN.t], [x(time), bottom]);
    context.fillText(text, clamp(x(time), MARGIN.l, MARGIN.l + inner - 6), bottom + MARGIN.b / 2);
  }
  context.textAlign = 'right';
  if (isHeat(task)) task.labels.forEach((label, row) => context.fillText(label.short, MARGIN.l - 6, MARGIN.t + ROW_HEIGHT * (row + 0.5)));
  else for (const value of [task.low, (task.low + task.high) / 2, task.high]) {
    strokePath(frame, faint, [MARGIN.l, depthOf(task, value)], [MARGIN.l + inner, depthOf(task, value)]);
    context.fillText(String(value).replace('-', '\u2212'), MARGIN.l - 6, depthOf(task, value));
  }
}

/** Draw lines, in the color of their label, or of their face if there are several, above the bands of the chosen face. */
function drawLines(frame, data, task, view) {
  const { context, inner } = frame;
  const buckets = Math.max(1, Math.round(inner / BUCKET_PX));
  const banded = view.band ? strongest(task, [view.chosen], MOST_BANDS, view.columns) : [];
  for (const column of view.chosen.lines[task.name]?.band.length ? banded : []) {
    context.fillStyle = `${colorOf(view, view.chosen, task.labels[column])}2e`;
    drawBand(frame, task, thinBand(data.times, ...['values', 'band'].map((name) => view.chosen.lines[task.name][name][column]),
      view.range, buckets / 2, [task.low, task.high]));
  }
  for (const face of view.faces) {
    const line = face.lines[task.name];
    for (const column of line ? view.columns : []) {
      const color = colorOf(view, face, task.labels[column]);
      const rows = thin(data.times, line.values[column], view.range, buckets);
      const dense = rows.length > buckets; // then a line fills an area, and only a hairline is drawn fast
      Object.assign(context, { strokeStyle: color, fillStyle: color, lineWidth: dense ? 1 : face === view.chosen ? 2 : 1.3 });
      context.setLineDash(dense ? [] : dashesOf(column));
      drawLine(frame, task, data.times, line.values[column], rows);
    }
  }
  context.setLineDash([]);
}

function drawBand({ context, x }, task, outline) {
  context.beginPath();
  outline.x.forEach((time, place) => {
    if (time === null) return;
    if (place && outline.x[place - 1] !== null) context.lineTo(x(time), depthOf(task, outline.y[place]));
    else context.moveTo(x(time), depthOf(task, outline.y[place]));
  });
  context.fill();
}

/** Draw a line through some rows; it breaks where a value is missing, and a value between two such places is a dot. */
function drawLine({ context, x }, task, times, values, rows) {
  context.beginPath();
  const known = (row) => row !== undefined && Number.isFinite(values[row]);
  rows.forEach((row, place) => {
    if (!known(row)) return;
    const [across, down] = [x(times[row]), depthOf(task, values[row])];
    const before = known(rows[place - 1]);
    if (before) context.lineTo(across, down);
    else context.moveTo(across, down);
    if (!before && !known(rows[place + 1])) context.fillRect(across - 2, down - 2, 4, 4);
  });
  context.stroke();
}

/** Draw the values of the chosen face as shades: one row per label. */
function drawShades({ context, x, inner }, data, task, view) {
  const line = view.chosen.lines[task.name];
  if (!line) return;
  const cells = thinHeat(data.times, line.values, view.range, Math.max(1, Math.round(inner / CELL_PX)));
  const edges = cells.x.map((time, place) => x(place ? (time + cells.x[place - 1]) / 2 : time));
  edges.push(x(cells.x.at(-1) ?? 0) + 1);
  cells.z.forEach((row, label) => row.forEach((value, place) => {
    if (value === null) return;
    context.fillStyle = shadeOf(shareOf(task, value));
    context.fillRect(edges[place], MARGIN.t + ROW_HEIGHT * label, edges[place + 1] - edges[place] + 0.5, ROW_HEIGHT);
  }));
}

/** Draw cuts and markers with their labels. */
function drawMarks(frame, data, [from, to]) {
  const { context, x, bottom, ink } = frame;
  const upright = (time, color) => strokePath(frame, color, [x(time), MARGIN.t], [x(time), bottom]);
  context.lineWidth = 1.5;
  context.setLineDash([2, 3]);
  for (const time of data.cuts) if (time >= from && time <= to) upright(time, ink);
  context.setLineDash([]);
  context.textAlign = 'left';
  const markers = data.markers.filter(({ start, end }) => end >= from && start <= to);
  for (const { kind, start, end, label } of markers.slice(0, MOST_MARKERS)) {
    if (start === end) upright(start, MARKER_COLORS[kind]);
    else fillTimes(frame, start, end, `${MARKER_COLORS[kind]}40`);
    context.fillStyle = ink;
    context.fillText(label, x(Math.max(start, from)) + 4, MARGIN.t + 8);
  }
}

/** Return the value that is nearest to a place in a timeline in words; an empty text for none. */
function tipAt(data, task, view, time, down) {
  const before = frameAt(data.times, time);
  const index = data.times[before + 1] - time < time - data.times[before] ? before + 1 : Math.max(before, 0);
  const row = Math.floor((down - MARGIN.t) / ROW_HEIGHT);
  const faces = isHeat(task) ? [view.chosen] : view.faces;
  const found = faces.flatMap((face) => (isHeat(task) ? [row] : view.columns).map((column) => {
    const line = face.lines[task.name];
    const value = line?.values[column]?.[index];
    return { face, column, value, spread: line?.band[column]?.[index], off: isHeat(task) ? 0 : Math.abs(depthOf(task, value) - down) };
  })).filter(({ value, off }) => Number.isFinite(value) && off <= NEAR_PX);
  if (!found.length) return '';
  const { face, column, value, spread } = found.reduce((one, other) => (other.off < one.off ? other : one));
  const band = Number.isFinite(spread) ? ` \u00b1 ${spread.toFixed(2)}` : '';
  const at = say('{time} s', { time: data.times[index].toFixed(2) });
  return `${titleOf(face)}, ${at}: ${task.labels[column].name} ${value.toFixed(2)}${band}`;
}

/** Return what stands beside the title of a timeline: what its numbers, its band and its shades are. */
function noteOf(data, task, view) {
  const { number, gaps } = view.chosen;
  const parts = [isHeat(task) ? say('face {number}; bright is {high}, dark is {low}', { number, ...task }) : ''];
  if (!isHeat(task) && view.band && task.band) {
    const which = view.columns.length > MOST_BANDS ? say(', {count} strongest labels', { count: MOST_BANDS }) : '';
    parts.push(say('band: {band}, face {number}', { band: task.band, number }) + which);
  }
  if (gaps.length) parts.push(say('shaded: face {number} not found', { number }));
  if (data.cuts.length) parts.push(say('dotted: cuts'));
  const [count, all] = [view.faces.length, data.faces.length];
  if (!view.single && count < all) parts.push(say('{count} of {all} faces', { count, all }));
  return [task.provenance, ...parts].filter(Boolean).join(' \u00b7 ');
}

/** Place a mark at a time, or a stretch of times, above a timeline; hide it outside of the range shown. */
function placeMark(mark, width, range, start, end = start) {
  const inner = width - MARGIN.l - MARGIN.r;
  const [from, to] = [start, end].map((time) => clamp((time - range[0]) / (range[1] - range[0]), 0, 1));
  mark.hidden = end < range[0] || start > range[1] || !(inner > 0);
  mark.style.transform = `translateX(${MARGIN.l + from * inner}px)`;
  if (end !== start) mark.style.width = `${(to - from) * inner}px`;
}

/** Return the time of a pointer above a timeline, or null beside it. */
function timeUnder(box, event, range, anywhere = false) {
  const place = box.getBoundingClientRect();
  const [x, y] = [event.clientX - place.left - MARGIN.l, event.clientY - place.top];
  const inner = place.width - MARGIN.l - MARGIN.r;
  if (!anywhere && (x < 0 || x > inner || y > place.height - MARGIN.b)) return null;
  return range[0] + clamp(x / inner, 0, 1) * (range[1] - range[0]);
}
