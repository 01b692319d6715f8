// A line over the last minutes, drawn in SVG. Keeps what this page has seen, a point a second, and what it was told of the time before, however far
// apart.

import { formatCount, formatSeconds, h, setText } from './dom.js';

const SVG = 'http://www.w3.org/2000/svg';
const WIDTH = 600;
const HEIGHT = 100;
const POINT_MS = 1000;
const SPAN_MIN_MS = 60000;
const SPAN_MAX_MS = 600000;
const HOLE_MS = 10 * POINT_MS;

function svg(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// 1, 2, 5, 10, 20, 50 …: a scale that does not change with every point.
function roundUp(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value);
}

export class LineChart {
  #points = []; // [time in ms, value of each series]
  #paths;
  #area;

  // series: names, which are the lines' CSS classes. filled: the area under the first line.
  constructor(place, label, series, { filled = false } = {}) {
    this.label = label;
    this.series = series;
    this.svg = svg('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', role: 'img', 'aria-label': label });
    for (const y of [0, HEIGHT / 2, HEIGHT]) this.svg.append(svg('line', { x1: 0, x2: WIDTH, y1: y, y2: y }));
    this.#area = filled ? svg('path', { class: 'area' }) : null;
    this.#paths = series.map((name) => svg('path', { class: name }));
    this.svg.append(...(this.#area ? [this.#area] : []), ...this.#paths);
    this.top = h('span', { class: 'top', 'aria-hidden': 'true' });
    this.then = h('span', { class: 'then', 'aria-hidden': 'true' });
    place.append(this.svg, this.top, h('span', { class: 'bottom', 'aria-hidden': 'true' }, '0'), this.then, h('span', { class: 'now', 'aria-hidden': 'true' }, 'now'));
  }

  // at: the server's time; max: the scale's end, null: what the points need.
  add(at, values, max = null) {
    const last = this.#points.at(-1);
    if (last && at - last[0] < POINT_MS / 2) return;
    this.#points.push([at, ...values]);
    while (this.#points[0][0] < at - SPAN_MAX_MS) this.#points.shift();
    this.#draw(at, max ?? this.#scale);
  }

  // points: [time in ms, value of each series], oldest first. What this page has seen itself is finer, and stays.
  addPast(points) {
    const first = this.#points[0]?.[0] ?? Infinity;
    this.#points.unshift(...points.filter(([at]) => at < first - POINT_MS / 2));
    if (this.#points.length > 0) this.#draw(this.#points.at(-1)[0], this.#scale);
  }

  get #scale() { return roundUp(Math.max(...this.#points.flatMap((point) => point.slice(1)))); }

  #draw(now, max) {
    // Grows from a minute to ten: what was not seen yet takes no room.
    const span = Math.max(now - this.#points[0][0], SPAN_MIN_MS);
    const x = (at) => (WIDTH - ((now - at) / span) * WIDTH).toFixed(1);
    const y = (value) => (HEIGHT - (Math.min(value, max) / Math.max(max, 1)) * HEIGHT).toFixed(1);
    this.#paths.forEach((path, i) => {
      // A hole in what was seen is a hole in the line.
      let before = -Infinity;
      const line = this.#points.map(([at, ...values]) => {
        const joined = at - before < HOLE_MS;
        before = at;
        return `${joined ? 'L' : 'M'}${x(at)} ${y(values[i])}`;
      }).join('');
      path.setAttribute('d', line);
      if (i === 0 && this.#area) this.#area.setAttribute('d', `M${x(this.#points[0][0])} ${HEIGHT}${line.replaceAll('M', 'L')}L${WIDTH} ${HEIGHT}Z`);
    });
    setText(this.top, formatCount(max));
    setText(this.then, `${formatSeconds(span / 1000)} ago`);
    const latest = this.series.map((name, i) => `${name} ${formatCount(Math.round(this.#points.at(-1)[i + 1]))}`).join(', ');
    this.svg.setAttribute('aria-label', `${this.label}: now ${latest}; the scale ends at ${formatCount(max)}`);
  }
}
