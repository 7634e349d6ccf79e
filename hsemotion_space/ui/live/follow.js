// Which face is which, and what was seen in the last ten seconds. Pure functions; times are in milliseconds.

const SPAN_MS = 10_000;
const SAME_FACE = 0.3; // intersection over union of two boxes of one face
const OUT_OF_SIGHT_MS = 1000; // a face that is missing for longer gets a new number when it returns
const UNSEEN_MS = 5000; // so long there may be no frame at all

/** Return intersection over union of two boxes, each left, top, right, bottom. */
function overlapOf(one, other) {
  const shared = [0, 1].map((side) => Math.max(0, Math.min(one[side + 2], other[side + 2]) - Math.max(one[side], other[side])));
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  const both = shared[0] * shared[1];
  return both / Math.max(area(one) + area(other) - both, 1e-9);
}

/**
 * Give the faces of a frame their numbers: the pairs of boxes that overlap most belong together. Boxes only, nothing else of a face.
 *
 * `known` is {open: [{number, box, time, missing}], next}, where `missing` is the time of the first frame without the face, null for none;
 * returns the numbers in the order of the boxes and what is known afterwards.
 */
function follow(known, boxes, time) {
  const inSight = (item) => (item.missing === null ? time - item.time <= UNSEEN_MS : time - item.missing <= OUT_OF_SIGHT_MS);
  const open = known.open.filter(inSight);
  const pairs = open.flatMap((item) => boxes.map((box, place) => ({ item, place, overlap: overlapOf(item.box, box) })));
  pairs.sort((one, other) => other.overlap - one.overlap);
  const numbers = boxes.map(() => 0);
  const taken = new Set();
  for (const { item, place, overlap } of pairs) {
    if (overlap < SAME_FACE || numbers[place] || taken.has(item.number)) continue;
    numbers[place] = item.number;
    taken.add(item.number);
  }
  let next = known.next;
  for (const place of numbers.keys()) numbers[place] ||= next++;
  const seen = numbers.map((number, place) => ({ number, box: boxes[place], time, missing: null }));
  const unseen = open.filter((item) => !taken.has(item.number)).map((item) => ({ ...item, missing: item.missing ?? time }));
  return { numbers, known: { open: [...seen, ...unseen], next } };
}

/** Add what was seen to the history, {time, faces: Map of number -> {box, lines}}, and drop what is older than ten seconds. */
function remember(history, time, faces) {
  return [...history.filter((item) => time - item.time <= SPAN_MS), { time, faces }];
}

/** Return how many of the last frames there were per second, over at most three seconds; 0 if that cannot be told. */
function paceOf(history) {
  const last = history.at(-1)?.time ?? 0;
  const times = history.map((item) => item.time).filter((time) => last - time <= 3000);
  return times.length > 1 ? (1000 * (times.length - 1)) / (last - times[0]) : 0;
}

/**
 * Return the face to show: the one that the visitor chose, if it was seen in the last ten seconds; else the one that was shown before,
 * until another has taken its place; else the largest of the last frame.
 */
function faceToShow(history, chosen, before) {
  const last = history.at(-1);
  const seenIn = (number, span) => history.some((item) => item.faces.has(number) && last.time - item.time <= span);
  if (seenIn(chosen, SPAN_MS)) return chosen;
  if (seenIn(before, last?.faces.size ? OUT_OF_SIGHT_MS : SPAN_MS)) return before;
  const size = ([, { box }]) => (box[2] - box[0]) * (box[3] - box[1]);
  const faces = [...(last?.faces ?? [])].sort((one, other) => size(other) - size(one));
  return faces.length ? faces[0][0] : null;
}

/** Return the numbers of all faces in the history, rising. */
const facesIn = (history) => [...new Set(history.flatMap((item) => [...item.faces.keys()]))].sort((one, other) => one - other);

/** Return the values of one task of one face over the history: {time, values}, with null where there are none. */
function seriesOf(history, number, task) {
  return history.map(({ time, faces }) => {
    const values = faces.get(number)?.lines[task.name]?.values.map((column) => column[0]);
    return { time, values: values?.every((value) => Number.isFinite(value)) ? values : null };
  });
}
