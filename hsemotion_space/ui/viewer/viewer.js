// The viewer itself: what is selected, and how media, chips, card, timelines and keys follow it.

const MOST_FACES = 6; // drawn together
const STRONGEST = 2; // labels drawn at first where several faces share a timeline
const CLICK_PX = 4; // a longer way is a drag
const READ_EVERY_MS = 200;
const SETTLE_MS = 250;
const SPOKEN_KEYS = 8;

const root = element.querySelector('.viewer');
const find = (selector) => root.querySelector(selector);
const sections = new Map(); // task name -> {task, box, plot, cursor, selected, chips, note}
const fresh = () => ({
  all: false, face: null, hidden: new Set(), labels: new Map(), strongest: new Map(), band: true,
  range: null, selection: null, caption: null,
});
let data = null;
let state = fresh();
let outline = ''; // what the sections were built for
let cast = ''; // what the chips and the card were built for
let chips = [];
let readings = [];
let person = null;
let listed = '[]'; // the markers in their list
let added = null; // start of the marker that was added last, whose label is wanted next
let readAt = 0;
let translate = () => {};

const stage = makeStage(root, {
  time: (time) => showTime(time),
  aim: (time) => placeCursors(time),
  state: () => showPlayback(),
  problem: (text) => showProblem(text),
});

// --- what is chosen -------------------------------------------------------------------------------------------------------------------

const chosenFace = () => data.faces.find((face) => face.number === state.face) ?? data.faces[0];
const range = () => state.range ?? data.span;
const frameTasks = () => data.tasks.filter((task) => task.scope === 'frame');

/** Return the faces drawn together, the chosen one among them. */
function shownFaces() {
  const chosen = chosenFace();
  if (!state.all) return [chosen];
  const first = data.faces.slice(0, MOST_FACES);
  return first.includes(chosen) ? first : [...first.slice(0, -1), chosen];
}

/** Return the columns drawn of a task: what was chosen, else all, or the strongest at first where faces share the timeline. */
function shownColumns(task) {
  const chosen = state.labels.get(task.name);
  if (chosen) return [...task.labels.keys()].filter((column) => chosen.has(column));
  if (!state.all) return [...task.labels.keys()];
  if (!state.strongest.has(task.name)) state.strongest.set(task.name, strongest(task, shownFaces(), STRONGEST));
  return state.strongest.get(task.name);
}

/** Return what events tell besides their own: the face, and the range in seconds or null. */
const circumstances = () => ({
  face: chosenFace()?.number ?? null,
  start: state.selection?.end == null ? null : state.selection.start,
  end: state.selection?.end ?? null,
});

/** Call `action` once, a while after the last of several calls. */
function settled(action) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, SETTLE_MS);
  };
}

const tellSeek = settled(() => trigger('seek', { time: stage.time, ...circumstances() }));
const announce = settled(() => data?.faces.length && (find('.announce').textContent = inWords()));

// --- time -----------------------------------------------------------------------------------------------------------------------------

const lastTime = () => Math.max(data.span[1], Number.isFinite(stage.video.duration) ? stage.video.duration : 0);

function seek(time) {
  if (!data.clip) return;
  stage.seek(time, lastTime());
  tellSeek();
  announce();
}

/** Go to the first analyzed frame at or after a time and stay there. */
function goTo(time) {
  stage.video.pause();
  seek(data.times[clamp(frameAt(data.times, time - TOLERANCE_S - 1e-6) + 1, 0, data.times.length - 1)]);
}

/** Return the time of the frame on screen, also while the player still seeks. */
const now = () => data.times[Math.max(0, frameAt(data.times, stage.time))];

function step(frames) {
  const index = clamp(frameAt(data.times, stage.time) + frames, 0, data.times.length - 1);
  stage.video.pause();
  seek(data.times[index]);
}

/** Follow the frame on screen: faces, cursors, clock and plane at once; the table a few times a second. */
function showTime(time) {
  if (!data) return;
  const task = data.tasks.find((item) => item.name === state.caption);
  const index = frameFor(data, time);
  const chosen = chosenFace();
  const faces = data.faces.map((face) => ({ face, box: boxAt(data, face, time) })).filter((item) => item.box);
  stage.paint(faces.map(({ face, box }) => ({
    box, color: face.color, ink: face.ink, number: face.number, chosen: face === chosen,
    text: task ? words(task, face.lines[task.name], index) : '',
  })));
  followCursor(time);
  const plane = data.tasks.find(isPlane);
  if (plane && find('.plane').clientWidth) paintPlane(find('.plane'), data, plane, shownFaces(), chosen, time);
  const last = lastTime();
  find('.clock').textContent = `${time.toFixed(2)} / ${last.toFixed(2)} s`;
  Object.assign(find('.position'), { max: last, value: time });
  find('.position').setAttribute('aria-valuetext', gettext('{time} of {total} seconds', { time: time.toFixed(1), total: last.toFixed(1) }));
  if (!stage.playing || performance.now() - readAt > READ_EVERY_MS) showNumbers(index);
}

/** Place the cursors; while the clip plays, turn the page of a zoomed timeline when the cursor leaves it. */
function followCursor(time) {
  const [start, end] = range();
  if (state.range && stage.playing && time > end && time < end + 1) showRange([time, time + end - start]);
  placeCursors(time);
}

function placeCursors(time = stage.time) {
  for (const { box, cursor } of sections.values()) placeMark(cursor, box.clientWidth, range(), time);
}

/** Write what the faces show in the frame on screen: the top expression into the chips, all values of one into the card. */
function showNumbers(index) {
  readAt = performance.now();
  const face = chosenFace();
  if (!face) return;
  const task = frameTasks().find((item) => item.kind === 'one_of');
  for (const chip of chips) chip.show(task ? words(task, chip.face.lines[task.name], index) : '', chip.face === face);
  find('.face-card').style.setProperty('--face', face.color);
  find('.face-card h2').textContent = face.name || gettext(data.clip ? 'Face {number} now' : 'Face {number}', face);
  for (const reading of readings) reading.show(face, index);
  person.show(face, data);
}

/** Return the frame on screen in one sentence. */
function inWords() {
  const face = chosenFace();
  const index = frameFor(data, stage.time);
  const said = frameTasks().map((task) => words(task, face.lines[task.name], index)).filter(Boolean);
  const text = `${titleOf(face)}: ${said.join('; ') || gettext('not found')}`;
  return data.clip ? `${gettext('{time} seconds', { time: stage.time.toFixed(2) })}, ${text}` : text;
}

function showPlayback() {
  find('.play').textContent = gettext(stage.playing ? 'Pause' : 'Play');
  find('.play').disabled = !stage.playable;
  if (!stage.playing && data) {
    stage.refresh();
    announce();
  }
}

function showProblem(text) {
  find('.problem').textContent = text;
  find('.problem').hidden = !text;
}

// --- ranges ---------------------------------------------------------------------------------------------------------------------------

/** Select a stretch; without an end it is a mark that waits for one. */
function select(start, end = null) {
  const rounded = [start, end ?? start].map((time) => Math.round(1000 * clamp(time, ...data.span)) / 1000);
  rounded.sort((one, other) => one - other);
  if (end !== null && rounded[0] === rounded[1]) return;
  state.selection = { start: rounded[0], end: end === null ? null : rounded[1] };
  showSelection();
}

function clearSelection() {
  if (!state.selection) return;
  state.selection = null;
  showSelection();
}

function mark(which) {
  const { start, end } = state.selection ?? {};
  if (which === 'start') select(now(), end != null && end > now() ? end : null);
  else if (start != null) select(Math.min(start, now()), Math.max(start, now()));
}

function showSelection(shown = state.selection) {
  const whole = shown && shown.end !== null;
  for (const { box, selected } of sections.values()) {
    if (whole) placeMark(selected, box.clientWidth, range(), shown.start, shown.end);
    else selected.hidden = true;
  }
  find('.chosen-range').textContent = !shown ? '' : whole
    ? gettext('Selected: {start} to {end} s', { start: shown.start.toFixed(2), end: shown.end.toFixed(2) })
    : gettext('The range starts at {start} s; press ] at its end.', { start: shown.start.toFixed(2) });
  for (const button of root.querySelectorAll('.needs-range')) button.disabled = !whole;
}

/** Show a stretch of time in all timelines; null for all of it. */
function showRange(wanted) {
  const [first, last] = data.span;
  if (wanted) {
    const length = clamp(wanted[1] - wanted[0], Math.min(4 * data.step, last - first), last - first);
    const start = clamp((wanted[0] + wanted[1] - length) / 2, first, last - length);
    wanted = length >= last - first ? null : [start, start + length];
  }
  state.range = wanted;
  redraw();
}

function zoom(factor, center = clamp(stage.time, ...range())) {
  const [start, end] = range();
  showRange([center - (center - start) * factor, center + (end - center) * factor]);
}

// --- timelines ------------------------------------------------------------------------------------------------------------------------

let waiting = false;
/** Draw what is shown, once for any number of changes before the next frame; `drawn` tells when it is done. */
function redraw() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(async () => {
    waiting = false;
    if (!data || !root.isConnected) return;
    if (!window.Plotly) {
      setTimeout(redraw, 50); // another viewer on the page is loading it
      return;
    }
    showSelection();
    placeCursors();
    await Promise.all([...sections.values()].map(drawSection));
    root.dispatchEvent(new CustomEvent('drawn'));
  });
}

async function drawSection({ task, box, plot, note }) {
  const width = box.clientWidth;
  if (!width || !chosenFace()) return;
  const faces = shownFaces();
  const view = {
    width, range: range(), faces, chosen: chosenFace(), single: faces.length === 1, columns: shownColumns(task), band: state.band,
    font: getComputedStyle(root).fontFamily,
  };
  note.textContent = noteOf(data, task, view);
  const first = !plot.classList.contains('js-plotly-plot');
  await drawTimeline(plot, data, task, view);
  if (first) plot.on('plotly_relayout', (change) => followAxis(change));
}

/** Follow a timeline whose time axis was dragged. */
function followAxis(change) {
  const moved = change['xaxis.range'] ?? [change['xaxis.range[0]'], change['xaxis.range[1]']];
  if (change['xaxis.autorange']) showRange(null);
  else if (moved.every(Number.isFinite)) showRange(moved);
}

function buildSection(task) {
  const note = make('span', { class: 'note' });
  const name = gettext('{task} over time', { task: task.title });
  const node = make('section', { class: 'task', 'aria-label': name }, make('h2', {}, task.title), note);
  const legend = make('div', { class: 'legend', role: 'group', 'aria-label': gettext('Labels of {task}', { task: task.title }) });
  const label = gettext('{task} over time; the tables below have the values', { task: task.title });
  const plot = make('div', { class: 'plot', role: 'img', 'aria-label': label });
  const [selected, cursor] = [make('div', { class: 'selected', hidden: '' }), make('div', { class: 'cursor' })];
  const box = make('div', { class: 'plot-box' }, plot, selected, cursor);
  node.append(...(isHeat(task) ? [] : [legend]), box);
  listen(box);
  new ResizeObserver(() => redraw()).observe(box);
  return { task, node, note, legend, box, plot, selected, cursor };
}

/** Click to seek, drag to select, double click to show all, wheel to zoom (with Ctrl) or to move. */
function listen(box) {
  let from = null;
  const under = (event, anywhere) => timeUnder(box, event, range(), anywhere);
  box.addEventListener('pointerdown', (event) => {
    from = event.button === 0 && under(event) !== null ? { x: event.clientX, time: under(event), drag: false } : null;
    if (from) root.focus({ preventScroll: true });
  });
  for (const name of ['mousedown', 'touchstart']) { // else Plotly would lay a cover over the page
    box.addEventListener(name, (event) => from && event.stopPropagation(), { capture: true });
  }
  box.addEventListener('pointermove', (event) => {
    if (!from || (!from.drag && Math.abs(event.clientX - from.x) <= CLICK_PX)) return;
    if (!from.drag) box.setPointerCapture(event.pointerId);
    from.drag = true;
    const ends = [from.time, under(event, true)].sort((one, other) => one - other);
    showSelection({ start: ends[0], end: ends[1] });
  });
  box.addEventListener('pointerup', (event) => {
    const { time, drag } = from ?? {};
    from = null;
    if (drag) select(time, under(event, true));
    else if (time !== undefined) seek(time);
  });
  box.addEventListener('pointercancel', () => {
    from = null;
    showSelection();
  });
  box.addEventListener('dblclick', (event) => under(event) !== null && showRange(null));
  box.addEventListener('wheel', (event) => {
    const across = Math.abs(event.deltaX) > Math.abs(event.deltaY);
    if (!event.ctrlKey && !(across && state.range)) return;
    event.preventDefault();
    const [start, end] = range();
    const move = ((end - start) * event.deltaX) / box.clientWidth;
    if (event.ctrlKey) zoom(Math.exp(clamp(event.deltaY, -100, 100) / 250), under(event, true));
    else showRange([start + move, end + move]);
  }, { passive: false });
}

// --- controls -------------------------------------------------------------------------------------------------------------------------

function showControls() {
  const flip = (name) => () => {
    if (!state.hidden.delete(name)) state.hidden.add(name);
    showAll();
  };
  const toggle = (name) => () => {
    state[name] = !state[name];
    showAll();
    announce();
  };
  refill(find('.shown'), [
    ...(data.faces.length > 1 ? [makeToggle(gettext('All faces together'), state.all, toggle('all'))] : []),
    ...frameTasks().map((task) => makeToggle(task.title, !state.hidden.has(task.name), flip(task.name))),
    makeToggle(gettext('Bands'), state.band, toggle('band')),
  ]);
  for (const section of sections.values()) {
    section.node.hidden = state.hidden.has(section.task.name);
    showLegend(section);
  }
}

/** Show the labels of a task as buttons that are also its legend. */
function showLegend({ task, legend }) {
  const shown = new Set(shownColumns(task));
  const single = shownFaces().length === 1;
  refill(legend, task.labels.map((label, column) => {
    const button = makeToggle(label.short, shown.has(column), () => {
      if (!shown.delete(column)) shown.add(column);
      state.labels.set(task.name, shown);
      showAll();
    });
    const line = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    line.setAttribute('aria-hidden', 'true');
    const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    const color = single ? label.color : 'currentColor';
    const look = { d: 'M0 4H26', fill: 'none', stroke: color, 'stroke-width': 3, 'stroke-dasharray': dashOf(column) };
    for (const [name, value] of Object.entries(look)) path.setAttribute(name, value);
    line.append(path);
    button.prepend(line);
    button.title = label.description;
    return button;
  }));
}

/** Build chips, warnings and card, which depend on the faces and the tasks, not on the frame on screen. */
function buildFaces() {
  chips = data.faces.map((face) => makeChip(face, () => selectFace(face.number)));
  find('.chips').replaceChildren(...chips.map(({ chip }) => chip));
  find('.warnings').replaceChildren(...makeWarnings(data.warnings, selectFace));
  const correct = (task) => (data.correctable ? () => correctTask(task) : null);
  readings = data.tasks.map((task) => makeReading(task, correct(task), goTo));
  find('.readings').replaceChildren(...readings.map(({ node }) => node));
  const isOpen = person?.node.open ?? false; // a merge makes all anew
  person = makePerson((change) => trigger('edit', change), now);
  person.node.open = isOpen;
  find('.by-hand').replaceChildren(person.node);
}

const correctTask = (task) => trigger('correct', { task: task.name, ...circumstances() });

/** Fill the list of markers unless it is as it should be; the label of a marker that was just added gets the focus. */
function showMarkers() {
  if (JSON.stringify(data.markers) === listed) return;
  listed = JSON.stringify(data.markers);
  find('.markers').replaceChildren(...markerItems(data.markers, goTo, changeMarker));
  const place = added === null ? -1 : data.markers.findIndex((marker) => Math.abs(marker.start - added) < 1e-3 && !marker.label);
  if (place >= 0) find('.markers').children[place].querySelector('input').focus();
  added = null;
}

/** Give a marker another label, which is in the list already, or delete it. */
function changeMarker(place, label) {
  const markers = [...data.markers];
  if (label === undefined) markers.splice(place, 1);
  else {
    markers[place] = { ...markers[place], label };
    listed = JSON.stringify(markers);
  }
  changeMarkers(markers);
}

function changeMarkers(markers) {
  trigger('edit', { action: 'markers', markers: markers.map(({ kind, start, end, label }) => [kind, start, end, label]) });
}

/** Mark the selected range, or the moment on screen. */
function addMarker(kind) {
  const { start, end } = state.selection?.end == null ? { start: now(), end: now() } : state.selection;
  if (kind === 'exclusion' && start === end) {
    find('.chosen-range').textContent = gettext('Select a range first, then exclude it.');
    return;
  }
  added = start;
  changeMarkers([...data.markers, { kind, start, end, label: '' }]);
}

function buildSections() {
  sections.clear();
  if (data.clip && data.faces.length) for (const task of frameTasks()) sections.set(task.name, buildSection(task));
  find('.sections').replaceChildren(...[...sections.values()].map((section) => section.node));
}

function selectFace(number) {
  state.face = number;
  showAll();
  announce();
}

/** Select the face after the selected one, or before it, and take the focus along if it is on the chips. */
function moveFace(by) {
  const focused = root.ownerDocument.activeElement?.closest('.chip');
  const index = (chips.findIndex(({ face }) => face === chosenFace()) + by + chips.length) % chips.length;
  selectFace(chips[index].face.number);
  if (focused) chips[index].chip.focus();
}

function showAll() {
  find('.nothing').hidden = Boolean(data);
  find('.body').hidden = !data;
  if (!data) return;
  for (const node of root.querySelectorAll('.clip-only')) node.hidden = !data.clip;
  for (const selector of ['.chips', '.face-card']) find(selector).hidden = !data.faces.length;
  if (sections.size) showControls();
  find('.timelines').hidden = !sections.size;
  find('.correct-range').hidden = !data.correctable;
  stage.refresh();
  redraw();
}

/** Take a new value; choices, zoom, range and playback stay if it is about the same media. */
function load() {
  if (!root.isConnected) return;
  const before = data?.media;
  data = props.value ? readPayload(props.value) : null;
  if (!data) {
    stage.video.pause();
    showAll();
    return;
  }
  catalog = data.texts ?? {};
  translate();
  if (before?.id !== data.media.id || before?.url !== data.media.url) {
    state = fresh();
    state.all = data.clip && data.faces.length > 1;
    showProblem('');
  }
  const labels = data.tasks.map((task) => [task.name, ...task.labels.map((label) => label.name)]);
  const tracks = data.faces.map((face) => [face.number, face.thumbnail]);
  const [shape, people] = [[data.media, tracks.length > 0, labels], [tracks, data.warnings, data.correctable]].map(JSON.stringify);
  if (shape !== outline) buildSections();
  if (shape + people !== cast) buildFaces();
  [outline, cast] = [shape, shape + people];
  for (const task of frameTasks()) if (sections.has(task.name)) sections.get(task.name).task = task;
  for (const one of chips) one.face = data.faces.find((face) => face.number === one.face.number);
  const tasks = frameTasks();
  if (!tasks.some((task) => task.name === state.caption)) state.caption = tasks[0]?.name ?? null;
  const options = tasks.map((task) => make('option', { value: task.name }, task.title));
  find('.caption').replaceChildren(...options, make('option', { value: '' }, gettext('number only')));
  find('.caption').value = state.caption ?? '';
  find('.caption-choice').hidden = !data.faces.length;
  showMarkers();
  stage.load(data.media);
  showAll();
  showPlayback();
}

// --- keys and buttons -----------------------------------------------------------------------------------------------------------------

const KEYS = {
  ' ': () => stage.toggle(),
  ArrowLeft: (event) => (event.shiftKey ? seek(stage.time - 1) : step(-1)),
  ArrowRight: (event) => (event.shiftKey ? seek(stage.time + 1) : step(1)),
  '[': () => mark('start'),
  ']': () => mark('end'),
  Escape: () => clearSelection(),
  '+': () => zoom(0.5),
  '-': () => zoom(2),
  0: () => showRange(null),
  m: () => addMarker('event'),
  x: () => addMarker('exclusion'),
  n: () => trigger('edit', { action: 'neutral', face: chosenFace().number, time: now() }),
};

root.addEventListener('keydown', (event) => {
  const { key, target } = event;
  if (!data || event.ctrlKey || event.altKey || event.metaKey || target.closest('input, select, textarea')) return;
  if (target.closest('button') && (key === ' ' || key === 'Enter')) return;
  const number = Number(key);
  const spoken = key.length === 1 && number >= 1 && number <= SPOKEN_KEYS;
  const sideways = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (sideways && chips.length && (!data.clip || target.closest('.chip'))) {
    event.preventDefault();
    moveFace(sideways);
    return;
  }
  if (!spoken && !(data.clip && Object.hasOwn(KEYS, key))) return;
  event.preventDefault();
  if (spoken) trigger('label_key', { number, time: stage.time, ...circumstances() });
  else KEYS[key](event);
});

root.addEventListener('goto', ({ detail: { time, face } }) => {
  if (!data?.faces.some((item) => item.number === face)) return;
  state.face = face;
  showAll();
  goTo(time);
});
find('.play').addEventListener('click', () => stage.toggle());
find('.back').addEventListener('click', () => step(-1));
find('.forth').addEventListener('click', () => step(1));
find('.position').addEventListener('input', (event) => seek(Number(event.target.value)));
find('.sound').addEventListener('click', (event) => {
  stage.video.muted = !stage.video.muted;
  event.target.setAttribute('aria-pressed', String(!stage.video.muted));
});
find('.speed').addEventListener('change', (event) => (stage.video.playbackRate = Number(event.target.value)));
find('.caption').addEventListener('change', (event) => {
  state.caption = event.target.value;
  stage.refresh();
});
find('.zoom').append(
  makeButton('Set range start', () => mark('start')),
  makeButton('Set range end', () => mark('end')),
  makeButton('Clear range', clearSelection, { class: 'needs-range', disabled: '' }),
  makeButton('Correct range', () => correctTask(frameTasks()[0]), { class: 'needs-range correct-range', disabled: '' }),
  makeButton('Mark event', () => addMarker('event')),
  makeButton('Exclude range', () => addMarker('exclusion'), { class: 'needs-range', disabled: '' }),
  makeButton('Zoom to range', () => showRange([state.selection.start, state.selection.end]), { class: 'needs-range', disabled: '' }),
  makeButton('Zoom in', () => zoom(0.5)),
  makeButton('Zoom out', () => zoom(2)),
  makeButton('Whole clip', () => showRange(null)),
);
find('.stage').addEventListener('click', (event) => {
  const place = event.currentTarget.getBoundingClientRect();
  const [x, y] = [(event.clientX - place.left) / place.width, (event.clientY - place.top) / place.height];
  const hit = data?.faces.find((face) => {
    const [left, top, right, bottom] = boxAt(data, face, stage.time) ?? [];
    return left <= x && x <= right && top <= y && y <= bottom;
  });
  if (hit) selectFace(hit.number);
});
new ResizeObserver(() => data && stage.refresh()).observe(find('.stage'));
translate = makeTranslator(root);
watch('value', load);
load();
