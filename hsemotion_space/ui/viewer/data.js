// Pure functions over the payload: no document and no Plotly here. NaN stands for a missing number.

const TOLERANCE_S = 0.002; // time stamps of a browser and of a decoder differ by less
const MOST_LINES = 8; // more independent labels become a heat map
const MOST_NAMED = 3; // independent labels named in a caption

const floats = (list) => Float32Array.from(list, (value) => (value === null ? NaN : value));

/** Parse the value of the component; `span` is the first and the last time, `step` the mean distance of frames in seconds. */
function readPayload(text) {
  const data = JSON.parse(text);
  const times = (data.times = Float64Array.from(data.times));
  data.clip = data.media.kind === 'clip' && times.length > 1;
  data.span = [times[0] ?? 0, times.at(-1) ?? 0];
  data.step = times.length > 1 ? (data.span[1] - data.span[0]) / (times.length - 1) : Infinity;
  for (const face of data.faces) {
    for (const line of Object.values(face.lines)) {
      line.values = line.values.map(floats);
      line.band = line.band.map(floats);
    }
  }
  return data;
}

const isHeat = (task) => task.kind === 'independent' && task.labels.length > MOST_LINES;
const isPlane = (task) => task.kind === 'continuous' && task.scope === 'frame' && task.labels.length === 2;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** Return the last index whose time is not after `time`; -1 before the first one. */
function frameAt(times, time) {
  let low = 0;
  let high = times.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] <= time + TOLERANCE_S) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Return the analyzed frame that speaks for `time`; -1 before the first one and more than a step after the last one. */
function frameFor(data, time) {
  const index = frameAt(data.times, time);
  return index === data.times.length - 1 && time > data.span[1] + data.step + TOLERANCE_S ? -1 : index;
}

/** Return the box of a face in shares of the picture, linear between two analyzed frames; null where it was not found. */
function boxAt(data, face, time) {
  const index = frameFor(data, time);
  const box = index < 0 ? null : face.boxes[index];
  const next = face.boxes[index + 1];
  if (!box || !next || Math.abs(time - data.times[index]) <= TOLERANCE_S) return box;
  const part = (time - data.times[index]) / (data.times[index + 1] - data.times[index]);
  return box.map((value, side) => value + part * (next[side] - value));
}

const titleOf = (face) => face.name || gettext('Face {number}', face);
const signed = (value) => (value <= -0.005 ? '\u2212' : '+') + Math.abs(value).toFixed(2);

/** Return the values of one frame (of the clip for a clip-level task) in words; an empty text where there are none. */
function words(task, line, index) {
  const at = task.scope === 'clip' ? 0 : index;
  const values = line ? line.values.map((column) => column[at]) : [];
  if (at < 0 || !values.length || values.some((value) => !Number.isFinite(value))) return '';
  const short = (column) => task.labels[column].short;
  if (line.none.includes(at)) return task.none;
  if (task.kind === 'one_of') {
    const top = line.top[at] ?? values.indexOf(Math.max(...values));
    return `${short(top)} ${Math.round(100 * values[top])}\u00a0%`;
  }
  if (task.kind === 'continuous') return values.map((value, column) => `${short(column)} ${signed(value)}`).join(', ');
  const order = values.map((_, column) => column).sort((one, other) => values[other] - values[one]);
  const first = (column) => `${short(column)} ${values[column].toFixed(2)}`;
  if (!line.thresholds.length) return order.slice(0, MOST_NAMED).map(first).join(', ');
  const present = order.filter((column) => values[column] >= line.thresholds[column]);
  const more = present.length > MOST_NAMED ? gettext(' and {count} more', { count: present.length - MOST_NAMED }) : '';
  return present.length ? present.slice(0, MOST_NAMED).map(short).join(', ') + more : gettext('none');
}

/** Return the first and the last index inside `range`, and one more at each side so that lines reach the border. */
function rowsOf(times, [start, end]) {
  return [Math.max(0, frameAt(times, start)), Math.min(times.length - 1, frameAt(times, end) + 1)];
}

/** Return the indices to draw of one line: all of them, or lowest, highest and one gap of each of `buckets` parts. */
function thin(times, values, range, buckets) {
  const [first, last] = rowsOf(times, range);
  const kept = [];
  if (last - first < 2 * buckets) {
    for (let row = first; row <= last; row++) kept.push(row);
    return kept;
  }
  const size = (last - first + 1) / buckets;
  for (let bucket = 0; bucket < buckets; bucket++) {
    const stop = bucket === buckets - 1 ? last + 1 : first + Math.floor((bucket + 1) * size);
    let low = -1;
    let high = -1;
    let gap = -1;
    for (let row = first + Math.floor(bucket * size); row < stop; row++) {
      if (values[row] !== values[row]) gap = row;
      else {
        if (low < 0 || values[row] < values[low]) low = row;
        if (high < 0 || values[row] > values[high]) high = row;
      }
    }
    const found = [low, high, gap].filter((row, place, all) => row >= 0 && all.indexOf(row) === place);
    kept.push(...found.sort((one, other) => one - other));
  }
  return kept;
}

/** Return the outline of value ± spread as polygons with null between them; lowest and highest edge of each part. */
function thinBand(times, values, spread, range, buckets, [bottom, top]) {
  const [first, last] = rowsOf(times, range);
  const size = Math.max(1, Math.ceil((last - first + 1) / buckets));
  const x = [];
  const y = [];
  let run = [];
  const close = () => {
    if (run.length > 1) {
      x.push(...run.map((part) => part[0]), ...run.map((part) => part[0]).reverse(), null);
      y.push(...run.map((part) => part[1]), ...run.map((part) => part[2]).reverse(), null);
    }
    run = [];
  };
  for (let at = first; at <= last; at += size) {
    const stop = Math.min(at + size, last + 1);
    let low = Infinity;
    let high = -Infinity;
    for (let row = at; row < stop; row++) {
      if (values[row] - spread[row] < low) low = values[row] - spread[row];
      if (values[row] + spread[row] > high) high = values[row] + spread[row];
    }
    if (high >= low) run.push([times[(at + stop - 1) >> 1], Math.max(bottom, low), Math.min(top, high)]);
    else close();
  }
  close();
  return { x, y };
}

/** Return columns of a heat map: middle times `x` and rows `z` with the peak of each part, null where there is none. */
function thinHeat(times, columns, range, buckets) {
  const [first, last] = rowsOf(times, range);
  const size = Math.max(1, Math.ceil((last - first + 1) / buckets));
  const x = [];
  for (let at = first; at <= last; at += size) x.push((times[at] + times[Math.min(at + size - 1, last)]) / 2);
  const z = columns.map((values) =>
    x.map((_, part) => {
      let peak = -Infinity;
      for (let row = first + part * size; row <= Math.min(first + (part + 1) * size - 1, last); row++) {
        if (values[row] > peak) peak = values[row];
      }
      return peak === -Infinity ? null : peak;
    }),
  );
  return { x, z };
}

/** Return those `count` of some columns whose label has the largest mean over some faces, in the order of the task. */
function strongest(task, faces, count, columns = [...task.labels.keys()]) {
  const mean = (column) => Math.max(...faces.map((face) => face.lines[task.name]?.mean[column] ?? -Infinity));
  const order = [...columns].sort((one, other) => mean(other) - mean(one));
  return order.slice(0, count).sort((one, other) => one - other);
}
