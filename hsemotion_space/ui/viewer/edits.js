// What a person adds by hand: names, merged faces, own neutrals, and markers. `send(change)` hands a change to the server, whose answer is
// a new value.

const LONGEST_TEXT = 80; // as on the server

/** Make the fields about the selected face; `show(face)` fills them in. */
function makePerson(send, now) {
  const name = make('input', { type: 'text', maxlength: LONGEST_TEXT, autocomplete: 'off', spellcheck: 'false' });
  const other = make('select');
  const neutral = make('span', { class: 'neutral' });
  let face = null;
  const change = (action, more = {}) => send({ action, face: face.number, ...more });
  const clear = makeButton(gettext('Clear'), () => change('neutral', { time: null }));
  const split = makeButton(gettext('Undo the merge'), () => change('split'));
  name.addEventListener('change', () => change('name', { name: name.value }));
  other.addEventListener('change', () => other.value && change('merge', { other: Number(other.value) }));
  const people = make('p', {}, make('label', {}, gettext('Same person as'), ' ', other), ' ', split);
  const here = makeButton(gettext('Mark this moment'), () => change('neutral', { time: now() }));
  const calmest = makeButton(gettext('Find the calmest second'), () => change('calmest'));
  const calm = make('p', {}, gettext('Own neutral:'), ' ', neutral, ' ', here, ' ', calmest, ' ', clear);
  const note = gettext('Names stay in this session and in your downloads; they are never sent with a correction.');
  const summary = make('summary');
  const node = make('details', { class: 'person' }, summary,
    make('p', {}, make('label', {}, gettext('Name'), ' ', name)), make('p', { class: 'source' }, note), calm, people);
  return {
    node,
    show(next, data) {
      if (next === face) return;
      face = next;
      if (document.activeElement !== name) name.value = face.name;
      calm.hidden = people.hidden = !data.clip;
      summary.textContent = gettext(data.clip ? 'Name, neutral, same person' : 'Name');
      neutral.textContent = face.neutral === null ? gettext('none') : gettext('{time} s', { time: face.neutral.toFixed(2) });
      clear.hidden = face.neutral === null;
      const others = data.faces.filter((one) => one !== face).map((one) => make('option', { value: one.number }, titleOf(one)));
      other.replaceChildren(make('option', { value: '' }, gettext(others.length ? 'select a face' : 'no other face')), ...others);
      split.hidden = !face.merged.length;
    },
  };
}

const spanOf = ({ start, end }) => (start === end ? gettext('{time} s', { time: start.toFixed(2) })
  : gettext('{start} to {end} s', { start: start.toFixed(2), end: end.toFixed(2) }));

/** Return the items of the list of markers: place, label and a button that deletes it; `change(place, label)` has no label for that. */
function markerItems(markers, go, change) {
  return markers.map((marker, place) => {
    const kind = marker.kind === 'event' ? gettext('Event') : gettext('Excluded');
    const about = gettext('Label of {kind} at {time}', { kind, time: spanOf(marker) });
    const look = { type: 'text', maxlength: LONGEST_TEXT, placeholder: gettext('Label'), autocomplete: 'off' };
    const label = make('input', { ...look, 'aria-label': about });
    label.value = marker.label;
    label.addEventListener('change', () => change(place, label.value));
    const remove = makeButton(gettext('Delete'), () => change(place), { 'aria-label': `${gettext('Delete')}: ${kind}, ${spanOf(marker)}` });
    return make('li', { class: marker.kind }, `${kind} `, makeButton(spanOf(marker), () => go(marker.start)), ' ', label, ' ', remove);
  });
}
