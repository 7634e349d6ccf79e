// The tab itself: when the camera runs and when it stops, one frame on the way at a time, and what its answers show.

const FRAME_MS = 125; // at most eight frames per second
const RETRY_MS = 1000;
const ANSWER_MS = 6000; // the server gives up earlier
const MOST_MISSES = 4; // frames in a row without numbers
const TICK_MS = 250;
const TEXTS_MS = 2000; // so long the texts in the language of the visitor are waited for

const root = element.querySelector('.live');
const find = (selector) => root.querySelector(selector);
const video = find('video');
const shutter = makeShutter(video);
const translate = makeTranslator(root);
const fresh = () => ({ history: [], known: { open: [], next: 1 }, chosen: null, face: null, checkpoint: '', tasks: [], delay: 0 });
const sections = new Map(); // task name -> {task, canvas, most, cells, rows}
let shown = fresh();
let session = null; // {stream, until, clock, pending: {sequence, time, timer}, next, misses, job} while the camera is on or asked for
let sequence = 0; // of the newest frame; never the same twice
let tick = props.tick;
let haveTexts = () => {};
const texts = new Promise((done) => (haveTexts = done));
let outline = ''; // what the sections were built for

// --- start and stop -------------------------------------------------------------------------------------------------------------------

const box = () => document.querySelector(`#${props.agreed} input[type=checkbox]`);
const agreed = () => Boolean(box()?.checked);
const limit = () => Number(props.limit_s);

/** Say what keeps the camera from being asked for; an empty text if nothing does. */
function obstacle() {
  if (!agreed()) return gettext('Select “{tick}” above first. The camera stays off until then.', { tick });
  if (navigator.mediaDevices?.getUserMedia) return '';
  return gettext('Browsers allow the camera only on pages whose address begins with https, and on localhost.');
}

async function start() {
  const mine = (session = { stream: null, pending: null, misses: 0, job: '' });
  await Promise.race([texts, new Promise((done) => setTimeout(done, TEXTS_MS))]);
  if (session !== mine) return;
  if (obstacle()) return stop(obstacle());
  tell('');
  clear();
  showState();
  try {
    const stream = await openCamera();
    if (session !== mine) return endTracks(stream); // stopped meanwhile
    mine.stream = stream;
    for (const track of stream.getTracks()) {
      track.addEventListener('ended', () => session === mine && stop(gettext('The camera was disconnected. Connect it, then start again.')));
    }
    video.srcObject = stream;
    await video.play();
  } catch (error) {
    if (session === mine) stop(cameraProblem(error));
    return;
  }
  if (session !== mine) return;
  mine.until = performance.now() + 1000 * limit();
  mine.clock = setInterval(countDown, TICK_MS);
  announce(gettext('The camera is on.'));
  showState();
  send();
}

/** Switch everything off; `problem` tells what went wrong, `note` why else it stopped. */
function stop(problem = '', note = '') {
  if (!session) return;
  const { stream, clock, pending, next } = session;
  session = null;
  endTracks(stream);
  video.pause();
  video.srcObject = null;
  clearInterval(clock);
  clearTimeout(pending?.timer);
  clearTimeout(next);
  paintFaces(find('.faces-drawn'), []);
  tell(problem, note);
  if (!problem) announce(note || gettext('The camera is off.'));
  showState();
}

/** Forget all numbers, here and in the value of the component. */
function clear() {
  shown = fresh();
  if (props.value) props.value = '';
  showAll();
}

/** Stop and forget: the tab or the page was left, or the tick was taken away. */
function leave(problem = '') {
  stop(problem);
  clear();
}

function countDown() {
  const left = session.until - performance.now();
  if (left <= 0) stop('', gettext('Stopped automatically after {seconds} seconds.', { seconds: limit() }));
  else showState();
}

function tell(problem, note = '') {
  find('.problem').textContent = problem;
  find('.problem').hidden = !problem;
  find('.left').textContent = note;
}

const announce = (text) => (find('.announce').textContent = text);

function showState() {
  const on = Boolean(session?.stream);
  video.hidden = !on;
  find('.off').hidden = on;
  find('.stage').classList.toggle('on', on);
  find('.off').textContent = gettext(session ? 'Waiting for the camera…' : 'The camera is off.');
  find('.start').textContent = gettext(session ? 'Stop' : 'Start the camera');
  find('.start').classList.toggle('running', Boolean(session));
  if (session?.until) {
    const seconds = Math.max(1, Math.ceil((session.until - performance.now()) / 1000));
    find('.left').textContent = gettext('The camera is on. It stops in {seconds} s.', { seconds });
  }
  if (!session) find('.pace').textContent = '';
}

// --- frames and answers ---------------------------------------------------------------------------------------------------------------

function later(action, wait) {
  clearTimeout(session.next);
  session.next = setTimeout(action, Math.max(0, wait));
}

/** Send the picture of now; the next one goes when its answer is there. */
function send() {
  if (!session || session.pending) return;
  if (!agreed()) return leave(gettext('You withdrew your consent, so the camera was stopped.'));
  const { job } = session;
  const frame = job ? '' : shutter();
  if (!job && !frame) return later(send, FRAME_MS);
  sequence += 1;
  session.pending = { sequence, time: performance.now(), timer: setTimeout(() => miss(gettext('The server does not respond.')), ANSWER_MS) };
  trigger('frame', job ? { sequence, job } : { sequence, frame });
}

/** Take an answer; one to another frame than the one on its way is too old. */
function take(answer) {
  const pending = session?.pending;
  if (!pending || pending.sequence !== answer.sequence) return;
  if (answer.stop) return leave(answer.stop);
  clearTimeout(pending.timer);
  session.pending = null;
  session.job = answer.job ?? '';
  if (answer.wait && !answer.job) return miss(answer.wait);
  session.misses = 0;
  if (answer.wait) find('.pace').textContent = answer.wait;
  else see(answer, pending.time);
  later(send, pending.time + FRAME_MS - performance.now());
}

/** Go on after a frame without numbers, but not for ever. */
function miss(reason) {
  session.pending = null;
  session.misses += 1;
  if (session.misses >= MOST_MISSES) return stop(gettext('{reason} The camera was stopped. You can start it again in a minute.', { reason }));
  find('.pace').textContent = reason;
  later(send, RETRY_MS);
}

function see(answer, time) {
  if (shown.checkpoint && shown.checkpoint !== answer.checkpoint) shown = fresh();
  const { numbers, known } = follow(shown.known, answer.faces.map((face) => face.box), time);
  const faces = new Map(answer.faces.map((face, place) => [numbers[place], face]));
  shown.known = known;
  shown.checkpoint = answer.checkpoint;
  shown.history = remember(shown.history, time, faces);
  shown.delay = performance.now() - time;
  shown.face = faceToShow(shown.history, shown.chosen, shown.face);
  if (answer.tasks.length) shown.tasks = answer.tasks;
  paint(faces);
  showAll();
}

// --- what is shown --------------------------------------------------------------------------------------------------------------------

const lookOf = (number) => props.colors[(number - 1) % props.colors.length];

function paint(faces) {
  const task = shown.tasks[0];
  const marks = [...faces].map(([number, { box: [left, top, right, bottom], lines }]) => ({
    ...lookOf(number), number, chosen: number === shown.face, text: words(task, lines[task.name], 0),
    box: [1 - right, top, 1 - left, bottom], // as in a mirror
  }));
  paintFaces(find('.faces-drawn'), marks);
}

function showAll() {
  const pattern = JSON.stringify(shown.tasks.map((task) => [task.name, task.provenance, task.labels]));
  if (pattern !== outline) {
    outline = pattern;
    sections.clear();
    for (const task of shown.tasks) sections.set(task.name, buildSection(task));
    find('.sections').replaceChildren(...[...sections.values()].map((section) => section.node));
  }
  const last = shown.history.at(-1);
  if (last && session) {
    const pace = { frames: paceOf(shown.history).toFixed(1), delay: Math.round(shown.delay) };
    const told = gettext('{frames} frames per second, delay {delay} ms', pace);
    find('.pace').textContent = last.faces.size ? told : gettext('No face found.');
  }
  find('.against').textContent = last?.faces.get(shown.face)?.against ?? '';
  showFaces();
  for (const section of sections.values()) showSection(section, last);
}

/** Offer the faces to choose from; the buttons stay the same as long as the faces do, so that a finger finds them. */
function showFaces() {
  const numbers = facesIn(shown.history);
  const group = find('.faces');
  const state = numbers.length > 1 ? `${numbers.join()};${shown.face}` : '';
  if (group.dataset.state === state) return;
  const focused = document.activeElement?.dataset?.face;
  group.dataset.state = state;
  group.replaceChildren(...(state ? numbers : []).map((number) => {
    const button = makeToggle(gettext('Face {number}', { number }), number === shown.face, () => {
      shown.chosen = shown.face = number;
      showAll();
    });
    const swatch = make('i', { class: 'swatch' });
    swatch.style.background = lookOf(number).color;
    button.prepend(swatch);
    button.dataset.face = number;
    return button;
  }));
  if (focused) group.querySelector(`[data-face="${focused}"]`)?.focus();
}

function buildSection(task) {
  const label = gettext('{task} over the last ten seconds; the table beside it has the values', { task: task.title });
  const canvas = make('canvas', { role: 'img', 'aria-label': label });
  canvas.style.height = `${heightOf(task)}px`;
  const most = make('span', { class: 'most' });
  const cells = task.labels.map(() => make('td', {}, '\u2013'));
  const rows = task.labels.map((entry, column) => {
    const name = make('th', { scope: 'row', title: entry.description }, entry.short);
    if (!isHeat(task)) name.prepend(makeSample(entry.color, column));
    return make('tr', {}, name, cells[column]);
  });
  const caption = make('caption', {}, `${task.title}, ${task.provenance}`);
  const pair = make('div', { class: 'pair' }, canvas, make('table', {}, caption, make('tbody', {}, ...rows)));
  const node = make('section', { class: 'task', 'aria-label': task.title });
  node.append(make('h3', {}, task.title), make('span', { class: 'note' }, task.provenance), most, pair);
  return { task, canvas, most, cells, rows, node };
}

/** Return a piece of the line of a label. */
function makeSample(color, column) {
  const line = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
  line.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  const look = { d: 'M0 4H26', fill: 'none', stroke: color, 'stroke-width': 3, 'stroke-dasharray': dashOf(column) };
  for (const [name, value] of Object.entries(look)) path.setAttribute(name, value);
  line.append(path);
  return line;
}

function showSection({ task, canvas, most, cells, rows }, last) {
  const line = last?.faces.get(shown.face)?.lines[task.name];
  const value = (column) => line?.values[column][0];
  most.textContent = (line && words(task, line, 0)) || '\u2013';
  cells.forEach((cell, column) => {
    const known = Number.isFinite(value(column));
    cell.textContent = !known ? '\u2013' : task.low < 0 ? signed(value(column)) : value(column).toFixed(2);
    rows[column].classList.toggle('present', known && line.thresholds.length > 0 && value(column) >= line.thresholds[column]);
  });
  if (canvas.clientWidth) drawSeries(canvas, task, seriesOf(shown.history, shown.face, task));
}

// --- events ---------------------------------------------------------------------------------------------------------------------------

function load() {
  if (!root.isConnected || !props.value) return;
  const value = JSON.parse(props.value);
  if (!value.texts) return take(value);
  catalog = value.texts;
  tick = value.tick;
  translate();
  showState();
  haveTexts();
}

find('.start').addEventListener('click', () => (session ? stop() : start()));
video.addEventListener('resize', () => find('.stage').style.setProperty('--aspect', String(video.videoWidth / video.videoHeight || 1.333)));
document.addEventListener('visibilitychange', () => document.hidden && leave());
window.addEventListener('pagehide', () => leave());
document.addEventListener('change', (event) => {
  if (event.target === box() && !agreed() && session) leave(gettext('You withdrew your consent, so the camera was stopped.'));
});
new ResizeObserver(() => {
  if (!root.clientWidth) leave(); // another tab was chosen
  else showAll();
}).observe(root);
watch('value', load);
load();
