// One connector: a row with its state and two charts, what is wrong, and all figures on demand.

import { Chart, Series } from "./chart.js";
import { Collections } from "./collections.js";
import { Facts, Meter, icon, make, say, set, show } from "./dom.js";
import { UNKNOWN, ago, bytes, complaintOf, count, duration, figure, plural, stateOf, time } from "./words.js";

const STEPS = ["received", "published", "confirmed", "saved"];

let numbered = 0;

export class Card {
  constructor(connector) {
    this.name = connector.name;
    this.visible = false;
    this.history = "wanted"; // wanted, asked, had
    this.rate = new Series((one, other) => (one + other) / 2);
    this.lag = new Series(Math.max);
    this.update(connector);
    this.build();
  }

  /** Takes new figures; draws nothing. */
  update(connector) {
    this.connector = connector;
    this.complaint = complaintOf(connector);
    this.word = this.complaint?.state ?? connector.state ?? "unknown";
    this.about = stateOf(this.word);
  }

  see(now) {
    this.rate.see(now, this.connector.rates?.confirmed_per_second ?? null);
    this.lag.see(now, this.connector.lag_seconds ?? null);
  }

  build() {
    const id = `details-${numbered += 1}`;
    this.sign = make("span", "sign");
    this.since = make("span", "since");
    this.open = make("button", "name", ...named(this.name));
    this.open.type = "button";
    this.open.setAttribute("aria-controls", id);
    this.open.addEventListener("click", () => this.expand(!this.expanded));
    this.rateChart = new Chart("Events/s", figure, 1);
    this.lagChart = new Chart("Lag", duration, 1);
    const head = make("div", "head",
      make("div", "who", make("h3", "", this.open), make("p", "state", this.sign, this.since)),
      this.rateChart.element, this.lagChart.element);
    this.cause = make("p", "cause");
    this.remedy = make("p", "remedy");
    this.trouble = make("div", "trouble", this.cause, this.remedy);
    this.snapshot = make("p", "snapshot");
    this.details = make("div", "details");
    this.details.id = id;
    this.element = make("li", "card", head, this.trouble, this.snapshot, this.details);
    this.element.card = this;
    this.expand(false);
  }

  expand(expanded) {
    this.expanded = expanded;
    set(this.open, "aria-expanded", String(expanded));
    show(this.details, expanded);
    if (expanded && !this.facts) this.buildDetails();
    if (expanded && this.visible) this.drawDetails();
  }

  buildDetails() {
    const list = (title) => {
      const facts = make("dl", "facts");
      this.details.append(make("section", "", make("h4", "", title), facts));
      return new Facts(facts);
    };
    this.way = make("ol", "way");
    this.steps = STEPS.map((step) => {
      const row = { number: make("b"), behind: make("span", "hint") };
      this.way.append(make("li", "", make("span", "label", step), row.number, row.behind));
      return row;
    });
    this.messages = new Meter("Messages in flight");
    this.bytes = new Meter("Bytes in flight");
    this.details.append(
      make("section", "wide", make("h4", "", "Position of the last event"), this.way),
      make("section", "", make("h4", "", "In flight, not yet confirmed"), this.messages.element, this.bytes.element));
    this.facts = list("Connections");
    this.safety = list("Safety");
    this.totals = list("In total");
    this.collections = new Collections();
    this.errorTitle = make("h4");
    this.errorText = make("p", "cause");
    this.errorRemedy = make("p", "remedy");
    this.error = make("section", "wide error", this.errorTitle, this.errorText, this.errorRemedy);
    this.details.append(this.collections.element, this.error);
  }

  /** Brings everything that is shown up to date. `now` is the server's, in seconds. */
  draw(now) {
    const { connector, complaint } = this;
    set(this.element, "data-tone", this.about.tone);
    set(this.element, "data-state", this.word);
    if (this.drawnWord !== this.word) {
      this.drawnWord = this.word;
      this.sign.replaceChildren(icon(this.about.icon), this.word);
    }
    say(this.since, since(complaint?.since ?? connector.state_since, now));
    show(this.trouble, complaint !== null);
    if (complaint) {
      say(this.cause, complaint.cause ?? "the cause is not known");
      say(this.remedy, complaint.remedy && complaint.remedy !== "none" ? complaint.remedy : "");
      show(this.remedy, this.remedy.textContent !== "");
    }
    const snapshot = connector.snapshot;
    show(this.snapshot, Boolean(snapshot));
    if (snapshot) say(this.snapshot, `Snapshot ${snapshot.phase}: ${plural(snapshot.documents, "document", "documents")}`);
    this.rateChart.draw(this.rate.points(now), now, connector.rates?.confirmed_per_second ?? null);
    this.lagChart.draw(this.lag.points(now), now, connector.lag_seconds ?? null);
    if (this.expanded) this.drawDetails(now);
  }

  drawDetails(now = this.rateChart.now) {
    const { connector } = this;
    this.drawWay(connector.positions ?? {});
    const window = connector.window ?? {};
    this.messages.put(window.messages, window.max_messages, `${count(window.messages)} of ${plural(window.max_messages, "message", "messages")}`);
    this.bytes.put(window.bytes, window.max_bytes, `${bytes(window.bytes)} of ${bytes(window.max_bytes)}`);
    const side = (up, reconnects) => [upWord(up), up === false ? "bad" : "", reconnects === undefined ? "" : plural(reconnects, "reconnect", "reconnects")];
    this.facts.put("MongoDB", ...side(connector.mongodb_up, connector.mongodb_reconnects));
    this.facts.put("RabbitMQ", ...side(connector.rabbitmq_up, connector.rabbitmq_reconnects));
    this.facts.put("Last progress", ago(connector.progress_age_seconds));
    const left = connector.time_to_history_loss_seconds;
    // The lag is the part of the oplog that is used up.
    const near = typeof left === "number" && connector.lag_seconds > left;
    this.safety.put("Until history is lost", duration(left ?? undefined), near ? "wait" : "", near ? "over half is gone" : "");
    const saved = connector.checkpoint?.saved_at;
    this.safety.put("Position saved", saved ? ago(now - Date.parse(saved) / 1000) : UNKNOWN, "", `run ${count(connector.checkpoint?.epoch)}`);
    this.safety.put("Restarts", count(connector.restarts), "", "since the start");
    this.drawMissing(connector.gaps, connector.dead_letters, now);
    this.drawTotals(connector.totals ?? {}, connector.rates ?? {});
    this.collections.draw(connector, now);
    this.drawError(connector.last_error, now);
  }

  /** What did not go the way of the others. */
  drawMissing(gaps, letters, now) {
    const told = (what, hint) => [count(what?.count), what?.count > 0 ? "bad" : "", hint];
    const when = (last) => ago(last?.at ? now - Date.parse(last.at) / 1000 : undefined);
    this.safety.put("Gaps", ...told(gaps, gaps?.last ? `${gaps.last.cause}, ${when(gaps.last)}` : "since the start"));
    this.safety.put("Dead letters", ...told(letters, letters?.last ? `${letters.last.reason}, ${when(letters.last)}` : "since the start"));
  }

  /** The numbers of the last event at each step, and how many wait before it. */
  drawWay(positions) {
    STEPS.forEach((step, index) => {
      say(this.steps[index].number, count(positions[step]));
      const waiting = positions[STEPS[index - 1]] - positions[step];
      say(this.steps[index].behind, waiting > 0 ? `${count(waiting)} behind` : "");
    });
  }

  drawTotals(totals, rates) {
    this.totals.put("Events confirmed", count(totals.events_confirmed), "", `${count(totals.events_received)} received`);
    this.totals.put("Bytes confirmed", bytes(totals.bytes_confirmed), "", `${bytes(rates.confirmed_bytes_per_second)}/s now`);
    this.totals.put("Failures", count(totals.failures), "", plural(totals.restarts, "restart", "restarts"));
  }

  drawError(error, now) {
    // What is wrong now is said above already.
    const told = error?.cause !== undefined && error.cause === this.complaint?.cause;
    show(this.error, Boolean(error) && !told);
    if (!error) return;
    const over = this.complaint ? "" : ", over now";
    say(this.errorTitle, `Last error${over}: ${moment(error.at, now)}`);
    say(this.errorText, error.cause ?? UNKNOWN);
    say(this.errorRemedy, error.remedy ?? "");
  }
}

function upWord(up) {
  return up === true ? "up" : up === false ? "down" : "not tried yet";
}

function moment(text, now) {
  const millis = Date.parse(text);
  return Number.isNaN(millis) ? "at an unknown time" : `${time(millis)} (${ago(now - millis / 1000)})`;
}

function since(text, now) {
  const millis = Date.parse(text);
  if (Number.isNaN(millis)) return "";
  return `since ${time(millis)}, ${duration(Math.max(0, Math.round(now - millis / 1000)))}`;
}

/** `db.coll -> queue` as a person writes it, to be broken at its dots. */
function named(name) {
  const [source, target] = name.split(" -> ");
  const parts = [make("span", "source", source)];
  if (target !== undefined) parts.push(make("span", "arrow", " → "), make("span", "target", target));
  return parts;
}
