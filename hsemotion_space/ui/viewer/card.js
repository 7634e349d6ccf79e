// What stands around the media: a chip per face, warnings, and the card with the values of the selected face.

const MOST_LISTED = 4; // independent labels without thresholds above the fold, and shares of time
const LEAST_SHARE = 0.005; // of the time

/** Return the values (K) of a line at a frame (of the clip for a clip-level task); null where the face was not found. */
function valuesAt(task, line, index) {
  const at = task.scope === 'clip' ? 0 : index;
  const values = line ? line.values.map((column) => column[at]) : [];
  return at >= 0 && values.length && values.every(Number.isFinite) ? values : null;
}

/** Make a chip that selects a face; `show(text)` writes what the face shows. */
function makeChip(face, select) {
  const [name, caption] = [make('span', { class: 'name' }), make('span', { class: 'top' })];
  const thumbnail = make('img', { src: face.thumbnail, alt: '', width: '36', height: '36' });
  const chip = makeButton(thumbnail, select, { role: 'radio', class: 'chip' });
  chip.append(make('b', {}, String(face.number)), name, caption);
  chip.style.setProperty('--face', face.color);
  chip.style.setProperty('--ink', face.ink);
  return {
    face,
    chip,
    show(text, on) {
      [name.textContent, caption.textContent] = [this.face.name, text];
      chip.setAttribute('aria-label', [gettext('Face {number}', face), this.face.name, text].filter(Boolean).join(', '));
      chip.setAttribute('aria-checked', String(on));
      chip.tabIndex = on ? 0 : -1;
    },
  };
}

/** Return one line per kind of warning, whose buttons select the faces, and the sentences behind them folded. */
function makeWarnings(warnings, select) {
  if (!warnings.length) return [];
  const lines = warnings.map(({ title, faces }) => make('li', {}, `${title}: `, ...faces.map((number) =>
    makeButton(String(number), () => select(number), { 'aria-label': gettext('Face {number}', { number }) }))));
  const details = warnings.flatMap((warning) => warning.details.map((text) => make('li', {}, text)));
  return [
    make('ul', { class: 'kinds', 'aria-label': gettext('Warnings') }, ...lines),
    make('details', {}, make('summary', {}, gettext('Details')), make('ul', {}, ...details)),
  ];
}

/** Make a row of one label: its name, a bar and its number. */
function makeBar(task, label, name) {
  const fill = make('i', { class: 'fill' });
  fill.style.background = label.color;
  const number = make('span', { class: 'number' });
  const node = make('li', { title: label.description }, make('span', { class: 'name' }, ...name),
    make('span', { class: 'bar', 'aria-hidden': 'true' }, fill), number);
  const share = (value) => (100 * (clamp(value, task.low, task.high) - task.low)) / (task.high - task.low);
  return {
    node,
    show(value, neutral) {
      fill.style.left = `${Math.min(share(0), share(value))}%`;
      fill.style.width = `${Math.abs(share(value) - share(0))}%`;
      const relative = Number.isFinite(neutral) ? ` (${signed(value - neutral)})` : '';
      number.textContent = (task.low < 0 ? signed(value) : value.toFixed(2)) + relative;
    },
  };
}

/** One of several labels: the most probable one large, and all of them as bars unless only some frames have one. */
function makeAnswer(task) {
  const [name, share] = [make('strong'), make('span')];
  const bars = task.none ? [] : task.labels.map((label) => makeBar(task, label, [label.short]));
  return {
    nodes: [make('p', { class: 'answer' }, name, ' ', share), make('ul', { class: 'bars' }, ...bars.map((bar) => bar.node))],
    show(values, line, index) {
      const none = line.none.includes(index);
      const top = line.top[index] ?? values.indexOf(Math.max(...values));
      name.parentElement.hidden = none;
      name.textContent = task.labels[top].name;
      share.textContent = `${Math.round(100 * values[top])}\u00a0%`;
      bars.forEach((bar, column) => bar.show(values[column]));
      return none ? task.none : line.right[top];
    },
  };
}

/** Continuous labels: their numbers, beside the plane if there are two. */
function makeNumbers(task) {
  const bars = task.labels.map((label) => makeBar(task, label, [label.name]));
  const words = gettext('Circumplex of valence and arousal; the values are beside it');
  const plane = isPlane(task) ? [make('canvas', { class: 'plane', role: 'img', 'aria-label': words })] : [];
  return {
    nodes: [make('div', { class: 'pair' }, ...plane, make('ul', { class: 'bars wide' }, ...bars.map((bar) => bar.node)))],
    show(values, line) {
      bars.forEach((bar, column) => bar.show(values[column], line.neutral[column]));
      return '';
    },
  };
}

/** Independent labels by name, the strongest first: those that are present, and the others folded. */
function makeList(task) {
  const whole = task.scope === 'clip';
  const named = (label) => [label.description.replace(/[.\u3002]$/, ''), ' ', make('small', {}, label.short)];
  const bars = task.labels.map((label) => makeBar(task, label, whole ? [label.name] : named(label)));
  const [first, rest, summary] = [make('ul', { class: 'bars wide' }), make('ul', { class: 'bars wide' }), make('summary')];
  return {
    nodes: [first, make('details', {}, summary, rest)],
    show(values, line) {
      const order = values.map((_, column) => column).sort((one, other) => values[other] - values[one]);
      const limits = line.thresholds;
      const isListed = (column, place) => !whole && (limits.length ? values[column] >= limits[column] : place < MOST_LISTED);
      const present = order.filter(isListed);
      const others = order.filter((column) => !present.includes(column));
      const nodesOf = (columns) => columns.map((column) => bars[column].node);
      order.forEach((column) => bars[column].show(values[column], line.neutral[column]));
      first.replaceChildren(...(present.length || whole ? nodesOf(present) : [make('li', { class: 'none' }, gettext('none'))]));
      rest.replaceChildren(...nodesOf(others));
      summary.textContent = whole ? gettext('one value for the whole clip') : gettext('{count} more', { count: others.length });
      const figures = limits.length ? present.map((column) => line.right[column]).filter(Boolean).join(', ') : '';
      return figures && gettext('correct of 10 such answers: {figures}', { figures });
    },
  };
}

/** Make what a task says about a whole clip: shares of time, and events as buttons that go there. */
function makeInTime(task, go) {
  const [summary, list] = [make('summary'), make('ul', { class: 'events' })];
  const node = make('details', { class: 'in-time' }, summary, list);
  node.open = task.kind === 'one_of' && !task.none;
  let shown = null;
  return {
    node,
    show(line) {
      if (line === shown) return;
      shown = line;
      node.hidden = !line?.share.length;
      if (node.hidden) return;
      const name = (column) => task.labels[column].short;
      const order = [...line.share.keys()].filter((column) => line.share[column] >= LEAST_SHARE);
      order.sort((one, other) => line.share[other] - line.share[one]);
      const shares = order.slice(0, MOST_LISTED).map((column) => `${name(column)} ${Math.round(100 * line.share[column])}\u00a0%`);
      summary.textContent = gettext('Share of time: {shares}', { shares: shares.join(', ') || task.none || gettext('none') });
      list.replaceChildren(...line.events.map(({ column, start, end, peak }) => {
        const values = { label: name(column), start: start.toFixed(1), end: end.toFixed(1), peak: peak.toFixed(2) };
        return make('li', {}, makeButton(gettext('{label} {start} to {end} s, peak {peak}', values), () => go(start)));
      }));
    },
  };
}

/** Make what the card shows of a task; `show(face, index)` writes the values of a frame. */
function makeReading(task, correct, go) {
  const part = { one_of: makeAnswer, continuous: makeNumbers, independent: makeList }[task.kind](task);
  const words = gettext('Not right?');
  const button = correct ? [makeButton(words, correct, { class: 'correct', 'aria-label': `${words} ${task.title}` })] : [];
  const [values, source, absent] = [make('div', {}, ...part.nodes), make('p', { class: 'source' }), make('p', { class: 'absent' })];
  const inTime = makeInTime(task, go);
  const node = make('section', { class: 'reading', 'data-task': task.name },
    make('header', {}, make('h3', {}, task.title), ...button), values, absent, inTime.node, source);
  return {
    node,
    show(face, index) {
      const line = face.lines[task.name];
      const found = valuesAt(task, line, index);
      const right = found ? part.show(found, line, index) : '';
      values.hidden = !found;
      absent.hidden = Boolean(found);
      absent.textContent = gettext(line ? 'not found' : 'too short');
      inTime.show(line);
      const relative = line?.neutral.length ? gettext('in parentheses: relative to your neutral') : '';
      node.classList.toggle('relative', Boolean(relative));
      source.textContent = [task.provenance, right, relative].filter(Boolean).join(' \u00b7 ');
    },
  };
}
