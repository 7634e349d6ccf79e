// One question at a time: shows it, takes one answer by key or pointer, and waits for the server, which knows what comes next.

const STEP = 0.05;
const LARGE_STEP = 0.25;
const WAIT_MS = 8000; // after that another try is allowed
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
const ACTS = { 0: 'cannot_tell', x: 'not_a_face', s: 'skip', u: 'undo' };

const root = element.querySelector('.annotate');
const find = (selector) => root.querySelector(selector);
const video = find('video');
const translate = makeTranslator(root);
const calm = window.matchMedia('(prefers-reduced-motion: reduce)');
let data = null;
let label = null; // chosen, but not sent while the plane is asked for too
let point = null; // [valence, arousal] once the dot is placed

const within = (value) => Math.min(data.bounds[1], Math.max(data.bounds[0], value));
const rounded = (value) => Math.round(value / STEP) * STEP;

// --- answers --------------------------------------------------------------------------------------------------------------------------

function answer(name) {
  if (!data?.item) return;
  if (!data.pad) return send({ action: 'answer', choice: 'label', label: name });
  label = name;
  showChosen();
  find('.announce').textContent = data.choices.find((choice) => choice.name === name).text;
}

function confirm() {
  if (!data?.item || !data.pad) return;
  if (!label) return tell('.problem', gettext('Select an expression first.'));
  send({ action: 'answer', choice: 'label', label, point: point ?? [] });
}

function act(name) {
  if (name === 'undo') return data?.can_undo && send({ action: 'undo' });
  if (!data?.item) return;
  if (name === 'skip') send({ action: 'skip' });
  else send({ action: 'answer', choice: name });
}

// --- the plane ------------------------------------------------------------------------------------------------------------------------

function place(valence, arousal) {
  point = [valence, arousal].map((value) => Number(rounded(within(value)).toFixed(2)));
  showPoint();
}

function move([across, up], step) {
  const [valence, arousal] = point ?? [0, 0];
  place(valence + across * step, arousal + up * step);
  find('.announce').textContent = find('.point').textContent;
}

function placeAt(event) {
  const box = find('.pad').getBoundingClientRect();
  const [low, high] = data.bounds;
  const share = (position, length) => low + (high - low) * (position / length);
  place(share(event.clientX - box.left, box.width), -share(event.clientY - box.top, box.height));
}

function showPoint() {
  const dot = find('.dot');
  dot.hidden = !point;
  const [low, high] = data.bounds;
  const [valence, arousal] = point ?? [0, 0];
  dot.style.left = `${(100 * (valence - low)) / (high - low)}%`;
  dot.style.top = `${(100 * (high - arousal)) / (high - low)}%`;
  for (const [name, value] of [['.valence', valence], ['.arousal', arousal]]) Object.assign(find(name), { min: low, max: high, value });
  const numbers = { valence: valence.toFixed(2), arousal: arousal.toFixed(2) };
  find('.point').textContent = point ? gettext('Valence {valence}, arousal {arousal}', numbers) : gettext('No dot: valence and arousal are left out.');
}

// --- what is shown --------------------------------------------------------------------------------------------------------------------

const tell = (selector, text) => tellIn(find(selector), text);

function fillList(list, lines) {
  const parts = lines.flatMap(([term, text]) => [['dt', term], ['dd', text]]);
  list.replaceChildren(...parts.map(([tag, text]) => Object.assign(document.createElement(tag), { textContent: text })));
}

function showChosen() {
  for (const button of find('.labels').children) {
    if (data.pad) button.setAttribute('aria-pressed', String(button.dataset.name === label));
    else button.removeAttribute('aria-pressed');
  }
}

/** Make the buttons of the labels once per language, so that none loses the focus. */
function showLabels() {
  const made = data.choices.map(({ name, text, hint }, number) => {
    const button = Object.assign(document.createElement('button'), { type: 'button', title: hint });
    button.dataset.name = name;
    const key = Object.assign(document.createElement('kbd'), { textContent: number + 1 });
    button.append(key, Object.assign(document.createElement('span'), { textContent: text }));
    button.addEventListener('click', () => answer(name));
    return button;
  });
  if (find('.labels').textContent !== made.map((button) => button.textContent).join('')) find('.labels').replaceChildren(...made);
}

function showClip(clip) {
  find('.stage').hidden = find('.play').hidden = !clip;
  if (!clip) {
    video.pause();
    return;
  }
  find('.stage').style.setProperty('--aspect', String(clip.width / clip.height || 1));
  find('.outline').hidden = true;
  if (video.getAttribute('src') !== clip.url) {
    video.setAttribute('src', clip.url);
    video.load();
  } else toStart();
  if (!calm.matches) video.play().catch(() => showPlayback());
}

function toStart() {
  const clip = data?.item?.clip;
  if (clip && video.readyState) video.currentTime = clip.start + offset() + 0.001;
}

/** Keep to the part that is asked about, and follow the face with the outline. */
function follow(time) {
  const clip = data?.item?.clip;
  if (!clip) return;
  if (time > clip.end + 0.05 || time < clip.start - 0.05) {
    find('.outline').hidden = true;
    if (!video.seeking) toStart();
    return;
  }
  moveOutline(find('.outline'), clip.boxes, time);
}

function showPlayback() {
  find('.play').textContent = video.paused ? gettext('Play') : gettext('Pause');
}

function togglePlay() {
  if (!data?.item?.clip) return;
  if (video.paused) video.play().catch(() => showPlayback());
  else video.pause();
}

function showItem(item) {
  find('.main').hidden = !item;
  find('.done').hidden = Boolean(item);
  if (!item) {
    video.pause();
    return;
  }
  const picture = find('.picture');
  picture.hidden = !item.picture;
  if (item.picture) picture.setAttribute('src', item.picture);
  else picture.removeAttribute('src');
  find('.note').textContent = item.note;
  fillList(find('.shown'), item.shown);
  find('.shown').hidden = !item.shown.length;
  showClip(item.clip);
}

/** Take a new value. What was chosen for the item before holds no longer. */
function load() {
  if (!root.isConnected) return;
  const before = data?.turn;
  data = props.value ? JSON.parse(props.value) : null;
  free();
  if (!data) return;
  catalog = data.texts;
  translate();
  if (before !== data.turn && !data.problem) [label, point] = [null, null];
  tell('.problem', data.problem);
  tell('.notice', data.notice);
  find('.place').textContent = find('.end').textContent = data.place;
  find('.bar div').style.width = `${100 * data.share}%`;
  showLabels();
  showChosen();
  find('.plane').hidden = find('.of-plane').hidden = !data.pad;
  showPoint();
  showItem(data.item);
  for (const button of root.querySelectorAll('[data-act=undo]')) button.disabled = !data.can_undo;
  fillList(find('.last dl'), data.last);
  find('.last').hidden = !data.last.length;
  find('.totals').replaceChildren(...data.totals.map((text) => Object.assign(document.createElement('li'), { textContent: text })));
  showPlayback();
  find('.announce').textContent = data.announce;
  const active = document.activeElement;
  if (data.begins || active === document.body || (root.contains(active) && !active.checkVisibility())) root.focus();
}

// --- keys and buttons -----------------------------------------------------------------------------------------------------------------

root.addEventListener('keydown', (event) => {
  const { key, target } = event;
  if (!data || event.ctrlKey || event.altKey || event.metaKey || event.repeat && !ARROWS[key]) return;
  const button = target.closest('button');
  if (button && (key === ' ' || key === 'Enter') || target.closest('input') && ARROWS[key]) return;
  const name = ACTS[key.toLowerCase()];
  const choice = key.length === 1 && key >= '1' ? data.choices[Number(key) - 1] : null;
  if (name) act(name);
  else if (choice) answer(choice.name);
  else if (data.item && data.pad && ARROWS[key]) move(ARROWS[key], event.shiftKey ? LARGE_STEP : STEP);
  else if (key === 'Enter' && data.pad) confirm();
  else if (key === ' ' && data.item?.clip) togglePlay();
  else return;
  event.preventDefault();
});

for (const button of root.querySelectorAll('[data-act]')) button.addEventListener('click', () => act(button.dataset.act));
find('.confirm').addEventListener('click', confirm);
find('.play').addEventListener('click', togglePlay);
for (const name of ['.valence', '.arousal']) {
  find(name).addEventListener('input', () => place(Number(find('.valence').value), Number(find('.arousal').value)));
}
const pad = find('.pad');
pad.addEventListener('pointerdown', (event) => {
  if (event.button !== 0) return;
  pad.setPointerCapture(event.pointerId);
  placeAt(event);
});
pad.addEventListener('pointermove', (event) => pad.hasPointerCapture(event.pointerId) && placeAt(event));
video.addEventListener('loadeddata', toStart);
for (const name of ['play', 'pause']) video.addEventListener(name, showPlayback);
video.addEventListener('error', () => {
  if (video.getAttribute('src')) tell('.problem', gettext('This browser cannot play this clip. Label the picture, or skip it.'));
});
const offset = watchFrames(video, follow);
watch('value', load);
load();
