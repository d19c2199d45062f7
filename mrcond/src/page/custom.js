// The user's own metrics, a table each.

import { Table, make, say } from "./dom.js";
import { count, figure, plural } from "./words.js";

const tables = new Map();

/** Draws the metrics into `place`. */
export function drawCustom(place, metrics) {
  const gone = new Set(tables.keys());
  for (const metric of metrics) {
    const names = [...new Set((metric.series ?? []).flatMap((series) => Object.keys(series.labels ?? {})))];
    const key = [metric.name, metric.type, ...names].join("\n");
    gone.delete(key);
    if (!tables.has(key)) tables.set(key, new Metric(metric, names, place));
    tables.get(key).draw(metric);
  }
  for (const key of gone) {
    tables.get(key).element.remove();
    tables.delete(key);
  }
}

class Metric {
  constructor(metric, names, place) {
    this.names = names;
    const columns = metric.type === "histogram" ? ["count", "mean"] : ["value"];
    const title = make("caption", "", make("b", "", metric.name), make("span", "hint", `${metric.type ?? ""}: ${metric.help ?? ""}`));
    this.table = new Table([...names, ...columns], names.length, title);
    this.more = make("p", "hint");
    this.element = make("div", "table", this.table.element, this.more);
    place.append(this.element);
  }

  draw(metric) {
    const rows = (metric.series ?? []).map((series) => {
      const labels = this.names.map((name) => series.labels?.[name] || "(empty)");
      const mean = series.count > 0 ? series.sum / series.count : null;
      return [...labels, ...("count" in series ? [count(series.count), figure(mean)] : [figure(series.value)])];
    });
    this.table.put(rows);
    say(this.more, metric.more_series ? `and ${plural(metric.more_series, "more series", "more series")} in /metrics` : "");
    if (rows.length === 0) say(this.more, "nothing counted yet");
  }
}
