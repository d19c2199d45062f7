// Making and changing elements. Text from the server becomes text and nothing else.

const SVG = "http://www.w3.org/2000/svg";

/** An element with a class and children (elements or strings). */
export function make(tag, className, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

export function makeSvg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A drawing in 16 x 16 that says nothing which the words beside it do not say. */
export function icon(path) {
  return makeSvg("svg", { viewBox: "0 0 16 16", class: "icon", "aria-hidden": "true" }, makeSvg("path", { d: path }));
}

/** Sets the text of an element, if it is another one: the browser then has nothing to do. */
export function say(element, text) {
  if (element.firstChild?.nodeType === Node.TEXT_NODE && element.childNodes.length === 1) {
    if (element.firstChild.data !== text) element.firstChild.data = text;
  } else {
    element.textContent = text;
  }
}

export function set(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

export function show(element, visible) {
  if (element.hidden === visible) element.hidden = !visible;
}

/** A list of terms and values in a `dl` that keeps its elements from one update to the next. */
export class Facts {
  constructor(list) {
    this.list = list;
    this.rows = new Map();
  }

  /** Sets the value of a term; `tone` is good, wait, bad or nothing, `hint` a smaller second line. */
  put(term, value, tone = "", hint = "") {
    let row = this.rows.get(term);
    if (!row) {
      row = { value: make("span", "value"), hint: make("span", "hint") };
      row.element = make("div", "fact", make("dt", "", term), make("dd", "", row.value, row.hint));
      this.rows.set(term, row);
      this.list.append(row.element);
    }
    say(row.value, value);
    say(row.hint, hint);
    set(row.element, "data-tone", tone);
    show(row.element, true);
  }

  without(term) {
    const row = this.rows.get(term);
    if (row) show(row.element, false);
  }
}

/** A table whose first `texts` columns are texts, and the others numbers. */
export class Table {
  constructor(columns, texts, ...caption) {
    this.texts = texts;
    const heads = columns.map((name, column) => {
      const head = make("th", this.side(column), name);
      head.scope = "col";
      return head;
    });
    this.body = make("tbody");
    this.element = make("table", "", ...caption, make("thead", "", make("tr", "", ...heads)), this.body);
  }

  side(column) {
    return column < this.texts ? "" : "right";
  }

  /** Sets all rows, each a list of strings. */
  put(rows) {
    while (this.body.rows.length > rows.length) this.body.deleteRow(-1);
    rows.forEach((row, index) => {
      const line = this.body.rows[index] ?? this.body.insertRow();
      row.forEach((text, column) => {
        const cell = line.cells[column] ?? line.insertCell();
        say(cell, text);
        cell.className = this.side(column);
      });
    });
  }
}

/** How full something is: a bar with words. */
export class Meter {
  constructor(name) {
    this.fill = make("i");
    this.bar = make("span", "meter", this.fill);
    this.bar.setAttribute("role", "img");
    this.text = make("span", "hint");
    this.name = name;
    this.element = make("div", "gauge", this.bar, this.text);
  }

  put(value, most, text) {
    const part = most > 0 ? Math.min(1, Math.max(0, value / most)) : 0;
    this.fill.style.width = `${(part * 100).toFixed(1)}%`;
    set(this.bar, "data-full", String(part > 0.9));
    set(this.bar, "aria-label", `${this.name}: ${text}`);
    say(this.text, text);
  }
}
