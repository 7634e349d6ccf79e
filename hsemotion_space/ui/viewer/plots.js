// Timelines drawn by Plotly, what stands beside a timeline, and the marks that lie above it.

const MARGIN = { l: 52, r: 12, t: 6, b: 24 }; // fixed, so that all timelines align and a place is a time
const DASHES = ['0', '8', '2', '8,3,2,3', '13,4', '2,6', '13,3,2,3', '13,3,2,3,2,3']; // in px; as in SVG and, with units, in Plotly
const MOST_BANDS = 2; // of one timeline
const MOST_BUCKETS = 240;
const MOST_MARKERS = 40; // of one timeline
const MARKER_COLORS = { event: '#6366f1', exclusion: '#dc2626' };
const LINES_HEIGHT = 150;
const ROW_HEIGHT = 16;
const CONFIG = { displayModeBar: false, displaylogo: false, doubleClick: false, responsive: false };
const CLEAR = 'rgba(0,0,0,0)';

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
const plotlyDash = (column) => dashOf(column).replace(/\d+/g, '$&px').replace(/^0px$/, 'solid');

/** Return in how many parts a timeline is drawn: one for three pixels, within bounds that keep redrawing fast. */
const bucketsOf = (view) => clamp(Math.round((view.width - MARGIN.l - MARGIN.r) / 3), 100, MOST_BUCKETS);

/** Return the traces of a task as lines: the color is that of the label, or of the face if there are several. */
function lineTraces(data, task, view) {
  const buckets = bucketsOf(view);
  const banded = view.band ? strongest(task, [view.chosen], MOST_BANDS, view.columns) : [];
  const bands = [];
  const lines = [];
  for (const face of view.faces) {
    const line = face.lines[task.name];
    for (const column of line ? view.columns : []) {
      const label = task.labels[column];
      const [values, spread] = [line.values[column], line.band[column]];
      const color = colorOf(view, face, label);
      if (face === view.chosen && spread && banded.includes(column)) {
        const outline = thinBand(data.times, values, spread, view.range, buckets / 2, [task.low, task.high]);
        bands.push({
          ...outline, type: 'scatter', mode: 'lines', fill: 'toself', hoverinfo: 'skip', fillcolor: `${color}2e`, line: { width: 0 },
        });
      }
      const rows = thin(data.times, values, view.range, buckets);
      const y = rows.map((row) => (Number.isFinite(values[row]) ? values[row] : null));
      const missing = (place) => (y[place] ?? null) === null;
      const lonely = y.map((_, place) => (!missing(place) && missing(place - 1) && missing(place + 1) ? 5 : 0));
      const alone = lonely.includes(5); // a frame between two gaps has no line
      lines.push({
        type: 'scatter', mode: alone ? 'lines+markers' : 'lines', x: rows.map((row) => data.times[row]), y, connectgaps: false,
        name: label.name,
        customdata: rows.map((row) => (spread && Number.isFinite(spread[row]) ? ` \u00b1 ${spread[row].toFixed(2)}` : '')),
        line: { color, width: face === view.chosen ? 2 : 1.3, dash: plotlyDash(column) }, marker: { size: alone ? lonely : 0, color },
        hovertemplate: `<b>${label.name}</b><br>%{x:.2f} s: %{y:.2f}%{customdata}<extra>${gettext('Face {number}', face)}</extra>`,
      });
    }
  }
  return [...bands, ...lines];
}

/** Return the heat map of the chosen face: one row per label. */
function heatTraces(data, task, view) {
  const line = view.chosen.lines[task.name];
  if (!line) return [];
  const { x, z } = thinHeat(data.times, line.values, view.range, bucketsOf(view));
  return [{
    type: 'heatmap', x, z, y: task.labels.map((_, column) => column), zmin: task.low, zmax: task.high, colorscale: 'Cividis',
    showscale: false, hoverongaps: false, text: z.map((row, column) => row.map(() => task.labels[column].name)),
    hovertemplate: `<b>%{text}</b><br>%{x:.2f} s: %{z:.2f}<extra>${gettext('Face {number}', view.chosen)}</extra>`,
  }];
}

const lineShape = (x, color, dash) => ({
  type: 'line', xref: 'x', yref: 'paper', x0: x, x1: x, y0: 0, y1: 1, line: { width: 1.5, color, dash },
});
const areaShape = (x0, x1, fillcolor) => ({
  type: 'rect', xref: 'x', yref: 'paper', x0, x1, y0: 0, y1: 1, fillcolor, line: { width: 0 }, layer: 'below',
});
const plain = (text) => text.replace(/&/g, '&amp;').replace(/</g, '&lt;'); // Plotly reads some markup in texts

/** Return shapes and texts of the cuts and markers in a range. */
function marksOf(data, [from, to]) {
  const markers = data.markers.filter(({ start, end }) => end >= from && start <= to).slice(0, MOST_MARKERS);
  const shapes = markers.map(({ kind, start, end }) => (start === end ? lineShape(start, MARKER_COLORS[kind], 'solid')
    : areaShape(start, end, `${MARKER_COLORS[kind]}40`)));
  const cuts = data.cuts.filter((time) => time >= from && time <= to).map((time) => lineShape(time, '#888', 'dot'));
  const texts = markers.filter(({ label }) => label).map(({ start, label }) => ({
    x: Math.max(start, from), y: 1, xref: 'x', yref: 'paper', xanchor: 'left', yanchor: 'top', showarrow: false, text: plain(label),
  }));
  return { shapes: [...cuts, ...shapes], annotations: texts };
}

/** Draw a frame-level task into `plot`; only what the range of `view` shows is handed to Plotly. */
function drawTimeline(plot, data, task, view) {
  const heat = isHeat(task);
  const marks = marksOf(data, view.range);
  const edge = 0.02 * (task.high - task.low);
  const fixed = { fixedrange: true, zeroline: !heat && task.low < 0, showgrid: !heat };
  const names = task.labels.map((label) => label.short);
  const rows = { range: [names.length - 0.5, -0.5], tickvals: [...names.keys()], ticktext: names };
  const layout = {
    width: view.width, height: MARGIN.t + MARGIN.b + (heat ? ROW_HEIGHT * names.length : LINES_HEIGHT), margin: MARGIN, autosize: false,
    showlegend: false, dragmode: false, hovermode: 'closest', paper_bgcolor: CLEAR, plot_bgcolor: CLEAR,
    font: { family: view.font, size: 11 },
    xaxis: { range: [...view.range], ticksuffix: ' s', nticks: 6, zeroline: false, showgrid: !heat },
    yaxis: { ...fixed, ...(heat ? rows : { range: [task.low - edge, task.high + edge], nticks: 5 }) },
    shapes: [...view.chosen.gaps.map(([x0, x1]) => areaShape(x0, x1, 'rgba(127,127,127,0.22)')), ...marks.shapes],
    annotations: marks.annotations,
  };
  return Plotly.react(plot, heat ? heatTraces(data, task, view) : lineTraces(data, task, view), layout, CONFIG);
}

/** Return what stands beside the title of a timeline: what its numbers, its band and its shades are. */
function noteOf(data, task, view) {
  const { number, gaps } = view.chosen;
  const parts = [isHeat(task) ? gettext('face {number}; bright is {high}, dark is {low}', { number, ...task }) : ''];
  if (!isHeat(task) && view.band && task.band) {
    const which = view.columns.length > MOST_BANDS ? gettext(', {count} strongest labels', { count: MOST_BANDS }) : '';
    parts.push(gettext('band: {band}, face {number}', { band: task.band, number }) + which);
  }
  if (gaps.length) parts.push(gettext('shaded: face {number} not found', { number }));
  if (data.cuts.length) parts.push(gettext('dotted: cuts'));
  const [count, all] = [view.faces.length, data.faces.length];
  if (!view.single && count < all) parts.push(gettext('{count} of {all} faces', { count, all }));
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
