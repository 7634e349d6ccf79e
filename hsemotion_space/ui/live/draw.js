// The rolling timelines: lines, or a row of shades per label where there are many. The right edge is the newest frame.

const ROW_PX = 18; // as high as a row of the table beside it
const LEAST_PX = 108;
const AXIS_PX = 18;
const EDGE = { left: 30, right: 4 };
const LONGEST_STEP_MS = 1500; // frames further apart are not joined
const SHADES = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]]; // as the heat maps of clips

const heightOf = (task) => Math.max(LEAST_PX, ROW_PX * task.labels.length) + AXIS_PX;

/** Return the color of a share from 0 to 1. */
function shadeOf(share) {
  const place = clamp(share, 0, 1) * (SHADES.length - 1);
  const low = Math.min(Math.floor(place), SHADES.length - 2);
  const mixed = SHADES[low].map((part, index) => Math.round(part + (place - low) * (SHADES[low + 1][index] - part)));
  return `rgb(${mixed.join(',')})`;
}

/** Draw one task of one face; `series` is what `seriesOf` returns. */
function drawSeries(canvas, task, series) {
  const { context, width, height } = prepared(canvas);
  const style = getComputedStyle(canvas);
  const end = series.at(-1)?.time ?? 0;
  const view = {
    context, width, bottom: height - AXIS_PX, ink: style.color, grid: style.getPropertyValue('--border-color-primary') || '#888',
    x: (time) => width - EDGE.right - ((end - time) / SPAN_MS) * (width - EDGE.left - EDGE.right),
    y: (value) => 5 + (height - AXIS_PX - 10) * (1 - (value - task.low) / (task.high - task.low)),
  };
  context.font = `11px ${style.fontFamily}`;
  drawAxis(view, end);
  if (isHeat(task)) drawShades(view, task, series);
  else drawLevels(view, task, series);
}

function drawAxis({ context, bottom, ink, grid, x }, end) {
  Object.assign(context, { fillStyle: ink, strokeStyle: grid, lineWidth: 1, textBaseline: 'middle' });
  for (const [seconds, align] of [[10, 'left'], [5, 'center'], [0, 'right']]) {
    const place = x(end - 1000 * seconds);
    context.textAlign = align;
    context.fillText(seconds ? `\u2212${seconds} s` : gettext('now'), place, bottom + AXIS_PX / 2 + 1);
    context.beginPath();
    context.moveTo(place, 0);
    context.lineTo(place, bottom);
    context.stroke();
  }
}

function drawLevels({ context, width, ink, grid, x, y }, task, series) {
  Object.assign(context, { fillStyle: ink, strokeStyle: grid, lineWidth: 1, textAlign: 'right' });
  for (const level of [task.low, (task.low + task.high) / 2, task.high]) {
    context.fillText(String(level).replace('-', '\u2212'), EDGE.left - 5, y(level));
    context.beginPath();
    context.moveTo(EDGE.left, y(level));
    context.lineTo(width - EDGE.right, y(level));
    context.stroke();
  }
  context.lineWidth = 1.8;
  task.labels.forEach((label, column) => {
    Object.assign(context, { strokeStyle: label.color, fillStyle: label.color });
    context.setLineDash(dashOf(column) === '0' ? [] : dashOf(column).split(',').map(Number));
    context.beginPath();
    series.forEach(({ time, values }, place) => {
      if (!values) return;
      const point = [x(time), y(values[column])];
      const joined = (other) => Boolean(other?.values) && Math.abs(time - other.time) <= LONGEST_STEP_MS;
      if (joined(series[place - 1])) context.lineTo(...point);
      else context.moveTo(...point);
      if (!joined(series[place - 1]) && !joined(series[place + 1])) context.fillRect(point[0] - 2, point[1] - 2, 4, 4);
    });
    context.stroke();
  });
  context.setLineDash([]);
}

function drawShades({ context, x }, task, series) {
  series.forEach(({ time, values }, place) => {
    if (!values) return;
    const next = series[place + 1];
    const until = next && next.time - time <= LONGEST_STEP_MS ? next.time : time + 100;
    const [left, right] = [x(time), Math.min(x(until), x(series.at(-1).time) + EDGE.right)];
    values.forEach((value, column) => {
      context.fillStyle = shadeOf((value - task.low) / (task.high - task.low));
      context.fillRect(left, ROW_PX * column + 1, Math.max(right - left + 0.5, 2), ROW_PX - 2);
    });
  });
}
