// A figure of the last hour: what the history store knows, continued by what the page sees.

import { make, makeSvg, say, set } from "./dom.js";
import { UNKNOWN, duration, minute } from "./words.js";

const HOUR = 3600;
/** What the page sees is kept in steps of this many seconds. */
const STEP = 10;
/** The least that a line stretches over, so that the first seconds are not drawn as an hour. */
const SHORTEST = 120;
/** Points further apart than this are not joined. */
const GAP = 150;
const WIDTH = 300;
const HEIGHT = 40;

/** Points `[unix seconds, value or null]`, oldest first. */
export class Series {
  constructor(keep) {
    this.keep = keep; // how two values of one step become one
    this.stored = [];
    this.seen = [];
  }

  see(now, value) {
    const step = Math.floor(now / STEP) * STEP;
    const last = this.seen.at(-1);
    if (last && last[0] === step) {
      if (value !== null) last[1] = last[1] === null ? value : this.keep(last[1], value);
      return;
    }
    this.seen.push([step, value]);
    while (this.seen[0][0] < now - HOUR) this.seen.shift();
  }

  /** Takes points of the history store; what the page saw counts from where they end. */
  remember(points) {
    // At the end are points that the store does not have yet, at the beginning those from before it.
    const first = points.findIndex((point) => point[1] !== null);
    const last = points.findLastIndex((point) => point[1] !== null);
    this.stored = first < 0 ? [] : points.slice(first, last + 1);
    const end = this.stored.at(-1)?.[0] ?? -Infinity;
    this.seen = this.seen.filter((point) => point[0] > end);
  }

  points(now) {
    return this.stored.concat(this.seen).filter((point) => point[0] >= now - HOUR);
  }
}

/** The drawing of a series, with its words. */
export class Chart {
  constructor(name, write, least) {
    Object.assign(this, { name, write, least, drawn: [] });
    this.area = makeSvg("path", { class: "area" });
    this.line = makeSvg("path", { class: "line" });
    this.end = makeSvg("path", { class: "end" });
    this.svg = makeSvg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" }, this.area, this.line, this.end);
    this.value = make("span", "number", UNKNOWN);
    this.caption = make("span", "hint");
    this.element = make("div", "chart", make("span", "label", name), this.value, this.svg, this.caption);
    this.svg.addEventListener("pointermove", (event) => this.point(event));
    this.svg.addEventListener("pointerleave", () => { this.pointed = false; this.draw(this.drawn, this.now, this.current); });
  }

  draw(points, now, current) {
    Object.assign(this, { drawn: points, now, current });
    say(this.value, this.write(current));
    const values = points.map((point) => point[1]).filter((value) => value !== null);
    const from = Math.max(now - HOUR, Math.min(points[0]?.[0] ?? now, now - SHORTEST));
    const peak = Math.max(this.least, ...values);
    Object.assign(this, { from });
    const x = (time) => ((time - from) / (now - from)) * WIDTH;
    const y = (value) => HEIGHT - 2 - (value / peak) * (HEIGHT - 6);
    const runs = joined(points).map((run) => run.map(([time, value]) => [x(time).toFixed(1), y(value).toFixed(1)]));
    const path = (run) => "M" + run.map((point) => point.join(" ")).join("L");
    set(this.line, "d", runs.map(path).join(""));
    set(this.area, "d", runs.map((run) => `${path(run)}L${run.at(-1)[0]} ${HEIGHT}L${run[0][0]} ${HEIGHT}Z`).join(""));
    // A line without length has round ends: a dot that is not stretched with the drawing.
    const last = points.at(-1)?.[1] === null ? null : runs.at(-1)?.at(-1);
    set(this.end, "d", last ? `M${last.join(" ")}h.01` : "");
    const span = now - from >= HOUR - 60 ? "last hour" : `last ${duration(Math.round((now - from) / 60) * 60)}`;
    const most = values.length ? this.write(Math.max(...values)) : UNKNOWN;
    const fewest = values.length ? this.write(Math.min(...values)) : UNKNOWN;
    set(this.svg, "aria-label", `${this.name}, ${span}: now ${this.write(current)}, lowest ${fewest}, highest ${most}`);
    if (!this.pointed) say(this.caption, values.length ? `${span}, peak ${most}` : "nothing known yet");
  }

  /** Says the value under the pointer. */
  point(event) {
    const box = this.svg.getBoundingClientRect();
    const time = this.from + ((event.clientX - box.left) / box.width) * (this.now - this.from);
    const distance = (point) => Math.abs(point[0] - time);
    const nearest = this.drawn.reduce((best, point) => (!best || distance(point) < distance(best) ? point : best), null);
    this.pointed = nearest !== null;
    if (nearest) say(this.caption, `${minute(nearest[0] * 1000)}: ${nearest[1] === null ? "not known" : this.write(nearest[1])}`);
  }
}

/** The runs of points without a hole between them. */
function joined(points) {
  const runs = [];
  let before = null;
  for (const point of points) {
    if (point[1] !== null) {
      if (before !== null && point[0] - before <= GAP) runs.at(-1).push(point);
      else runs.push([point]);
      before = point[0];
    } else {
      before = null;
    }
  }
  return runs;
}
