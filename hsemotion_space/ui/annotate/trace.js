// One pass: plays the clip, samples the slider at the frames that are shown, and sends the samples; the server says what comes next.

const RATE_HZ = 10;
const SPEED = 0.8; // of the slider per second while a key is held
const NUDGE = 0.05; // at once when it is pressed
const STICK_DEAD = 0.12;
const RUN_UP_S = 2; // shown before a part that is repaired
const SEEN_S = 8; // of the curve while the clip plays
const WAIT_MS = 15000;
const COLORS = ['#0072b2', '#d55e00'];
const DIRECTIONS = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 };

const root = element.querySelector('.trace');
const find = (selector) => root.querySelector(selector);
const [video, slider, canvas] = ['video', '.slider', '.curve'].map(find);
const tell = (selector, text) => tellIn(find(selector), text);
const translate = makeTranslator(root);
let data = null;
let pass = null; // what is recorded: its part of the clip, its samples by slot
let device = ''; // with which the slider was moved last
let rating = false; // whether the slider is held by somebody
let value = 0;
let direction = 0; // of the key that is held
let ticked = 0; // when the slider moved last, in ms

const low = () => (data?.bounded ? -1 : -1000);
const slotOf = (time) => Math.floor((time - data.clip.start) * RATE_HZ + 0.01);

// --- the slider -----------------------------------------------------------------------------------------------------------------------

/** Move the slider; the first move begins the trace. */
function setValue(next, by) {
  value = Math.max(low(), Math.min(-low(), next));
  [device, rating] = [by, true];
  showSlider();
}

function showSlider() {
  slider.classList.toggle('rating', rating);
  const [from, to] = shownRange();
  slider.firstElementChild.style.top = `${100 * (1 - (value - from) / (to - from))}%`;
  slider.setAttribute('aria-valuenow', value.toFixed(2));
}

/** What the slider and the curve show: the scale, or without limits the part around the ratings so far. */
function shownRange() {
  if (data?.bounded !== false) return [-1, 1];
  const rated = [value, ...(pass ? [...pass.samples.values()].map((sample) => sample[1]) : [])];
  return [Math.min(...rated) - 1, Math.max(...rated) + 1];
}

/** Move by keys and gamepad, as long as they are held. */
function tick(now) {
  const seconds = Math.min((now - ticked) / 1000, 0.1);
  ticked = now;
  if (direction) setValue(value + direction * SPEED * seconds, 'keys');
  const stick = -(navigator.getGamepads?.().find(Boolean)?.axes[1] ?? 0);
  if (device === 'gamepad' || Math.abs(stick) > STICK_DEAD) {
    const free = Math.abs(stick) > STICK_DEAD ? value + stick * SPEED * seconds : value;
    setValue(data?.bounded ? stick : free, 'gamepad');
  }
  if (root.isConnected && pass) requestAnimationFrame(tick);
}

function point(event) {
  const box = slider.getBoundingClientRect();
  const by = event.pointerType === 'mouse' ? 'mouse' : 'touch';
  if (data.bounded) setValue(1 - (2 * (event.clientY - box.top)) / box.height, by);
  else setValue(value - (event.type === 'pointermove' && event.buttons ? event.movementY / 100 : 0), by);
}

function release() {
  if (device === 'mouse' || device === 'touch') rating = false;
  showSlider();
}

// --- recording ------------------------------------------------------------------------------------------------------------------------

/** Record a pass: of all of the clip, or of a part of it into the samples that are there. */
function start(part = null) {
  if (!data?.clip || waiting) return;
  const { start: first, end } = data.clip;
  const [times, values] = part ? data.raw : [[], []];
  const samples = new Map(times.map((time, row) => [slotOf(time), [time, values[row]]]));
  const [from, to] = part ?? [first, end];
  for (const slot of samples.keys()) if (slot >= slotOf(from) && slot <= slotOf(to)) samples.delete(slot);
  pass = { attempt: part ? 'repair' : data.attempt === 'first' ? 'first' : 'second', from, to, samples };
  [value, device, rating, direction] = [0, '', false, 0];
  tell('.problem', '');
  video.currentTime = Math.max(first, from - (part ? RUN_UP_S : 0)) + offset() + 0.001;
  ticked = performance.now();
  requestAnimationFrame(tick);
  root.focus();
  show();
  video.play().catch(() => stop(gettext('This browser cannot play this clip.')));
}

function onTime(time) {
  if (!data?.clip) return;
  moveOutline(find('.outline'), data.clip.boxes, time);
  if (!pass || video.seeking) return;
  if (rating && time >= pass.from - 0.05 && time <= pass.to + 0.05 && !pass.samples.has(slotOf(time))) {
    pass.samples.set(slotOf(time), [Number(time.toFixed(3)), Number(value.toFixed(4))]);
  }
  draw(time);
  if (time >= pass.to - 0.001) finish();
}

function finish() {
  if (!pass) return;
  const samples = [...pass.samples.values()].sort(([one], [other]) => one - other);
  const { attempt } = pass;
  stop();
  if (samples.length < 2) return tell('.problem', gettext('Nothing was rated. Move the slider while the clip plays.'));
  send({ action: 'trace', attempt, device: device || 'keys', times_s: samples.map(([time]) => time), values: samples.map(([, rated]) => rated) });
}

function stop(problem = '') {
  pass = null;
  direction = 0;
  video.pause();
  if (problem) tell('.problem', problem);
  show();
}

function pauseOrPlay() {
  if (!pass) start();
  else if (video.paused) video.play();
  else video.pause();
}

// --- what is shown --------------------------------------------------------------------------------------------------------------------

/** Draw the last seconds of the pass, or both passes over all of the clip. */
function draw(time = 0) {
  const scale = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth * scale, canvas.clientHeight * scale];
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext('2d');
  context.clearRect(0, 0, width, height);
  const lines = pass ? [[...pass.samples.values()].filter(([moment]) => moment > time - SEEN_S && moment <= time)] : data.passes.map(([times, values]) => times.map((moment, row) => [moment, values[row]]));
  const [from, to] = pass ? [time - SEEN_S, time] : [data.clip?.start ?? 0, data.clip?.end ?? 1];
  const [bottom, top] = pass ? shownRange() : [-1, 1];
  const at = ([moment, rated]) => [((moment - from) / (to - from)) * width, (1 - (rated - bottom) / (top - bottom)) * height];
  context.fillStyle = 'rgba(224, 49, 49, 0.2)';
  for (const [left, right] of pass ? [] : data.apart) context.fillRect(at([left, 0])[0], 0, at([right, 0])[0] - at([left, 0])[0], height);
  context.lineWidth = 2 * scale;
  lines.forEach((samples, number) => {
    context.strokeStyle = pass ? getComputedStyle(canvas).color : COLORS[number];
    context.setLineDash(number ? [6 * scale, 4 * scale] : []);
    context.beginPath();
    samples.forEach((sample, row) => {
      const apart = row && sample[0] - samples[row - 1][0] > 0.5;
      context[row && !apart ? 'lineTo' : 'moveTo'](...at(sample));
    });
    context.stroke();
  });
}

function show() {
  const done = data.passes.length > 0;
  find('.main').hidden = find('.controls').hidden = !data.clip;
  find('.start').hidden = done && !pass;
  find('.start').textContent = pass ? (video.paused ? gettext('Continue') : gettext('Pause')) : data.attempt === 'first' ? gettext('Start') : gettext('Trace it again');
  find('.next').disabled = Boolean(pass);
  find('.result').hidden = !done || Boolean(pass);
  find('.places').hidden = !data.apart.length;
  showSlider();
  draw();
}

function showRepairs() {
  const make = ([from, to]) => {
    const text = gettext('Repair {start} to {end} s', { start: from.toFixed(1), end: to.toFixed(1) });
    const button = Object.assign(document.createElement('button'), { type: 'button', textContent: text });
    button.addEventListener('click', () => start([from, to]));
    return button;
  };
  find('.repairs').replaceChildren(...data.apart.map(make));
  find('.agreement').replaceChildren(...data.agreement.map((text) => Object.assign(document.createElement('li'), { textContent: text })));
}

/** Take a new value: another face, or what became of a pass. */
function load() {
  if (!root.isConnected) return;
  data = props.value ? JSON.parse(props.value) : null;
  free();
  if (!data) return;
  catalog = data.texts;
  translate();
  pass = null;
  tell('.problem', data.problem);
  tell('.notice', data.notice);
  for (const name of ['place', 'dimension', 'high', 'low']) find(`.${name}`).textContent = data[name];
  const passes = { first: gettext('First pass'), second: gettext('Second pass: the first one stays hidden') };
  find('.pass').textContent = (data.clip && passes[data.attempt]) || '';
  slider.setAttribute('aria-label', data.dimension);
  slider.setAttribute('aria-valuemin', low());
  slider.setAttribute('aria-valuemax', -low());
  if (data.clip) {
    find('.stage').style.setProperty('--aspect', String(data.clip.width / data.clip.height || 1));
    if (video.getAttribute('src') !== data.clip.url) {
      video.setAttribute('src', data.clip.url);
      video.load();
    }
  } else video.pause();
  showRepairs();
  show();
  find('.announce').textContent = `${data.place} ${find('.pass').textContent} ${data.agreement.join(' ')}`;
  if (data.begins || document.activeElement === document.body) root.focus();
}

// --- keys, pointers and buttons -------------------------------------------------------------------------------------------------------

root.addEventListener('keydown', (event) => {
  const { key, target } = event;
  if (!data?.clip || event.ctrlKey || event.altKey || event.metaKey) return;
  if (target.closest('button') && (key === ' ' || key === 'Enter')) return;
  if (DIRECTIONS[key] && pass) {
    if (!event.repeat) setValue(value + (direction = DIRECTIONS[key]) * NUDGE, 'keys');
  } else if (key === ' ' && !find('.start').hidden) pauseOrPlay();
  else return;
  event.preventDefault();
});
root.addEventListener('keyup', ({ key }) => DIRECTIONS[key] === direction && (direction = 0));
root.addEventListener('focusout', () => (direction = 0));
for (const name of ['pointerdown', 'pointermove']) {
  slider.addEventListener(name, (event) => {
    if (!pass || (event.pointerType !== 'mouse' && !event.buttons)) return;
    if (name === 'pointerdown') slider.setPointerCapture(event.pointerId);
    point(event);
  });
}
for (const name of ['pointerleave', 'pointerup', 'pointercancel']) {
  slider.addEventListener(name, (event) => (name !== 'pointerup' || event.pointerType !== 'mouse') && release());
}
slider.addEventListener('wheel', (event) => {
  if (!pass || data.bounded) return;
  event.preventDefault();
  setValue(value - event.deltaY / 200, 'mouse');
}, { passive: false });
find('.start').addEventListener('click', pauseOrPlay);
find('.next').addEventListener('click', () => send({ action: 'next' }));
document.addEventListener('visibilitychange', () => document.hidden && pass && video.pause());
for (const name of ['play', 'pause']) video.addEventListener(name, () => data && show());
video.addEventListener('ended', finish);
video.addEventListener('error', () => video.getAttribute('src') && stop(gettext('This browser cannot play this clip.')));
new ResizeObserver(() => data && !pass && draw()).observe(canvas);
const offset = watchFrames(video, onTime);
watch('value', load);
load();
