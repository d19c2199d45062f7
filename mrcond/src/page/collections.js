// The collections of a connector that watches a whole database or deployment, on demand.

import { Table, make, say, show } from "./dom.js";
import { ago, count, plural } from "./words.js";

/** More collections than this are only counted. */
const MOST = 20;

export class Collections {
  constructor() {
    this.number = make("span", "hint");
    this.table = new Table(["Collection", "Events confirmed", "Last event"], 1);
    this.more = make("p", "hint");
    const summary = make("summary", "", make("h4", "", "Collections"), " ", this.number);
    this.element = make("details", "collections", summary, this.table.element, this.more);
  }

  /** `now` is the server's, in seconds. */
  draw(connector, now) {
    const all = connector.collections ?? [];
    show(this.element, connector.collection === "*");
    say(this.number, all.length ? `${count(all.length)} with events since the start` : "none has had an event since the start");
    const busiest = [...all].sort((one, other) => other.events_confirmed - one.events_confirmed).slice(0, MOST);
    const name = (one) => (connector.database === "*" ? `${one.database}.${one.collection}` : one.collection);
    this.table.put(busiest.map((one) => [name(one), count(one.events_confirmed), ago(now - Date.parse(one.last_event_at) / 1000)]));
    show(this.table.element, all.length > 0);
    say(this.more, all.length > MOST ? `and ${plural(all.length - MOST, "more", "more")} in /status` : "");
  }
}
