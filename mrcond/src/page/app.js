// The page: follows /events, keeps a card for each connector, draws those that are on the screen.

import { Card } from "./card.js";
import { drawCustom } from "./custom.js";
import { Facts, icon, make, say, set, show } from "./dom.js";
import { STATES, bytes, count, duration, figure, plural, stateOf, time, verdict } from "./words.js";

/** Older news than this many milliseconds are called stale. */
const STALE = 6000;
/** How often the page asks /status itself while there is no event stream. */
const POLL = 4000;
/** Requests for history at once, and the pause after one that failed. */
const HISTORY_REQUESTS = 2;
const HISTORY_PAUSE = 30000;
/** With more connectors than this there are a search and filters, and details are closed. */
const MANY = 8;
const FEW = 3;

const at = (id) => document.getElementById(id);
const cards = new Map();
let order = "";
let filter = "all";
let newest = null; // the last status
let received = 0; // when it came, performance.now()
const opened = Date.now();
let clockOffset = 0; // the server's clock minus this one's, in seconds
const serverNow = () => Date.now() / 1000 + clockOffset;

// ---- the stream -----------------------------------------------------------------------

let source = null;

function connect() {
  source?.close();
  source = new EventSource("/events");
  source.addEventListener("status", (event) => take(JSON.parse(event.data)));
}

/** The browser connects again by itself, but gives up when the answer is an error. */
async function watch() {
  if (source.readyState === EventSource.CLOSED) {
    await poll();
    connect();
  }
}

async function poll() {
  try {
    const answer = await fetch("/status", { cache: "no-store", signal: AbortSignal.timeout(POLL) });
    if (answer.ok) take(await answer.json());
  } catch { /* the page says that it is stale */ }
}

function take(status) {
  const before = received;
  received = performance.now();
  const started = Date.parse(status.started_at);
  if (started && typeof status.uptime_seconds === "number") {
    clockOffset = started / 1000 + status.uptime_seconds - Date.now() / 1000;
  }
  // What happened while there was no news is in the history store.
  const restarted = newest !== null && newest.started_at !== status.started_at;
  if (before && (received - before > 4 * STALE || restarted)) forgetHistory();
  newest = status;
  const news = update(status.connectors ?? []);
  draw();
  if (news.length) announce(news);
}

// ---- connectors -----------------------------------------------------------------------

const onScreen = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target.card.visible = isIntersecting;
    if (isIntersecting) drawCard(target.card);
  }
  loadHistory();
}, { rootMargin: "200px" });

/** Brings the cards in line with what the server says; returns the changes of state, in words. */
function update(connectors) {
  const news = [];
  const now = serverNow();
  const gone = new Set(cards.keys());
  connectors.forEach((connector, index) => {
    gone.delete(connector.name);
    let card = cards.get(connector.name);
    const before = card?.word;
    if (card) card.update(connector);
    else card = add(connector, connectors.length);
    card.index = index;
    card.see(now);
    if (before && before !== card.word) {
      const cause = card.complaint?.cause ? `: ${card.complaint.cause}` : "";
      news.push(`${card.name.replace("->", "to")} is ${card.word}${cause}`);
    }
  });
  for (const name of gone) {
    onScreen.unobserve(cards.get(name).element);
    cards.get(name).element.remove();
    cards.delete(name);
  }
  arrange();
  return news;
}

function add(connector, total) {
  const card = new Card(connector);
  cards.set(connector.name, card);
  onScreen.observe(card.element);
  if (total <= FEW) card.expand(true);
  return card;
}

/** Puts the cards in order: those that need a person first. */
function arrange() {
  const sorted = [...cards.values()].sort((one, other) => one.about.rank - other.about.rank || one.index - other.index);
  const names = sorted.map((card) => card.name).join("\n");
  if (names === order) return;
  order = names;
  const focused = document.activeElement;
  at("connectors").append(...sorted.map((card) => card.element));
  // An element that is moved loses the focus.
  if (focused !== document.activeElement) focused.focus({ preventScroll: true });
}

function drawCard(card) {
  card.draw(serverNow());
}

function announce(news) {
  const most = 3;
  const more = news.length > most ? `; and ${news.length - most} more` : "";
  say(at("news"), news.slice(0, most).join("; ") + more);
}

// ---- history --------------------------------------------------------------------------

let asking = 0;
let askAgain = 0;

function loadHistory() {
  if (newest?.history?.enabled === false || performance.now() < askAgain) return;
  for (const card of cards.values()) {
    if (asking >= HISTORY_REQUESTS) return;
    if (card.visible && !card.element.hidden && card.history === "wanted") askHistory(card);
  }
}

async function askHistory(card) {
  asking += 1;
  card.history = "asked";
  try {
    const { database, collection } = card.connector;
    const query = new URLSearchParams({ collection: `${database}.${collection}`, from: "-1h", step: "60s" });
    const answer = await fetch(`/history?${query}`, { signal: AbortSignal.timeout(20000) });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    remember(card, (await answer.json()).series ?? []);
    card.history = "had";
  } catch {
    card.history = "wanted";
    askAgain = performance.now() + HISTORY_PAUSE;
  }
  asking -= 1;
  loadHistory();
}

/** The store knows collections; where two connectors share one, its figures are of neither. */
function remember(card, series) {
  const same = ({ connector }) => connector.database === card.connector.database && connector.collection === card.connector.collection;
  if ([...cards.values()].filter(same).length > 1) return;
  const points = (metric) => series.find((one) => one.metric === metric)?.points ?? [];
  card.rate.remember(points("events_per_second"));
  card.lag.remember(points("lag_seconds"));
  if (card.visible) drawCard(card);
}

function forgetHistory() {
  askAgain = 0;
  for (const card of cards.values()) card.history = "wanted";
}

// ---- the head and the rest --------------------------------------------------------------

const facts = new Facts(at("facts"));
const process = new Facts(at("process"));

function draw() {
  drawHead();
  drawTools();
  for (const card of cards.values()) {
    if (card.visible && !card.element.hidden) drawCard(card);
  }
  drawFacts();
  const metrics = newest.custom_metrics ?? [];
  show(at("custom"), metrics.length > 0);
  drawCustom(at("custom-tables"), metrics);
  loadHistory();
}

/** How old the news are decides what the head may say. */
function drawHead() {
  const age = performance.now() - received;
  const stale = age > STALE;
  const heard = received ? Date.now() - age : null;
  const link = !received ? "waiting" : stale ? "stale" : "live";
  if (link === "stale" && at("live").dataset.link === "live") say(at("news"), "No answer from mrcond");
  set(at("live"), "data-link", link);
  set(document.body, "data-link", link);
  const trying = source?.readyState === EventSource.OPEN ? "stale" : "reconnecting, stale";
  say(at("live-text"), { waiting: "connecting", live: "live", stale: `${trying} since ${time(heard)}` }[link]);
  if (!newest) return;
  const words = [...cards.values()].map((card) => card.word);
  const said = stale ? { text: `No answer from mrcond since ${time(heard)}`, state: "unknown" } : verdict(words);
  const { tone, icon: path } = stateOf(said.state);
  say(at("headline-text"), said.text);
  if (at("headline").dataset.state !== said.state) {
    at("headline-icon").replaceChildren(icon(path));
    set(at("headline"), "data-state", said.state);
    set(at("headline"), "data-tone", stale ? "bad" : tone);
    drawTab(stale ? "bad" : tone);
  }
  const title = `${said.text} · mrcon`;
  if (document.title !== title) document.title = title;
  say(at("summary"), stale ? "What is shown below is from then." : summary(words));
}

function summary(words) {
  const rate = sum((connector) => connector.rates?.confirmed_per_second);
  const lags = newest.connectors?.map((connector) => connector.lag_seconds).filter((lag) => typeof lag === "number") ?? [];
  const counted = Object.keys(STATES)
    .map((state) => [words.filter((word) => word === state).length, state])
    .filter(([number]) => number > 0 && number < words.length)
    .map(([number, state]) => `${count(number)} ${state}`);
  const lag = lags.length ? `largest lag ${duration(Math.max(...lags))}` : "lag not known yet";
  return [...counted, `${figure(rate)} events/s`, lag].join(" · ");
}

function sum(of) {
  return (newest.connectors ?? []).reduce((total, connector) => total + (of(connector) ?? 0), 0);
}

/** The icon of the browser's tab. */
function drawTab(tone) {
  const colour = { good: "%2323774c", wait: "%23c27c00", bad: "%23c62f23", calm: "%23557391" }[tone];
  const shape = tone === "good" ? "<circle cx='8' cy='8' r='6'/>" : tone === "bad" ? "<path d='M5 1h6l4 4v6l-4 4H5l-4-4V5z'/>" : "<path d='M8 1l7 14H1z'/>";
  document.querySelector("link[rel=icon]").href = `data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16' fill='${colour}'>${shape}</svg>`;
}

function drawFacts() {
  const { mongodb = {}, rabbitmq = {}, history } = newest;
  say(at("version"), [newest.version, newest.revision].filter(Boolean).join(" · "));
  facts.put("MongoDB", ...side("mongodb_up"));
  facts.put("RabbitMQ", ...(rabbitmq.blocked ? ["blocked", "wait", "takes no messages"] : side("rabbitmq_up")));
  facts.put("Oplog window", duration(mongodb.oplog_window_seconds ?? undefined), "", mongodb.oplog_error ?? "");
  facts.put("Confirmed", `${figure(sum((connector) => connector.rates?.confirmed_per_second))}/s`, "", rateOfBytes());
  facts.put("In flight", count(sum((connector) => connector.window?.messages)), "", bytes(sum((connector) => connector.window?.bytes)));
  facts.put("Up for", duration(Math.floor(newest.uptime_seconds)), "", newest.started_at ? `since ${time(Date.parse(newest.started_at))}` : "");
  const p = newest.process ?? {};
  process.put("CPU time", duration(p.cpu_seconds), "", share(p.cpu_seconds));
  process.put("Memory", bytes(p.resident_bytes), "", p.memory_budget_bytes ? `events: ${bytes(p.memory_used_bytes)} of ${bytes(p.memory_budget_bytes)}` : "");
  process.put("Open files", count(p.open_fds), p.open_fds > 0.8 * p.max_fds ? "wait" : "", p.max_fds ? `of ${count(p.max_fds)}` : "");
  process.put("Threads", count(p.threads), "", p.tokio_workers ? plural(p.tokio_workers, "worker", "workers") : "");
  process.put("Tasks", count(p.tokio_alive_tasks));
  process.put("Busy", typeof p.tokio_busy_ratio === "number" ? `${figure(p.tokio_busy_ratio * 100)} %` : "–", p.tokio_busy_ratio > 0.9 ? "wait" : "", "of its workers' time");
  say(at("note"), note(history));
}

/** Whether a side is up: a word, a tone and a hint. Each connector has a connection of its own. */
function side(key) {
  const all = (newest.connectors ?? []).map((connector) => connector[key]);
  const [up, down] = [true, false].map((value) => all.filter((one) => one === value).length);
  if (up && down) return ["up", "wait", `not for ${plural(down, "connector", "connectors")}`];
  return down ? ["down", "bad"] : up ? ["up", "good"] : ["not tried yet"];
}

function rateOfBytes() {
  const known = (newest.connectors ?? []).some((connector) => connector.rates?.confirmed_bytes_per_second !== undefined);
  return known ? `${bytes(sum((connector) => connector.rates?.confirmed_bytes_per_second))}/s` : "";
}

function share(cpu) {
  return cpu > 0 && newest.uptime_seconds > 0 ? `${figure((cpu / newest.uptime_seconds) * 100)} % since the start` : "";
}

function note(history) {
  const here = `Lines show what this page has seen since ${time(opened)}`;
  if (!history) return "";
  if (history.enabled === false) return `The history is switched off. ${here}.`;
  if (history.up === false) return `The history store does not answer${history.error ? ` (${history.error})` : ""}. Newer figures are what this page has seen.`;
  return "Lines come from the history store and go on live.";
}

// ---- search, filters, details ---------------------------------------------------------

const buttons = new Map();

function drawTools() {
  const many = cards.size > MANY;
  show(at("tools"), many);
  show(at("expand"), cards.size > 1);
  const closed = [...cards.values()].some((card) => !card.expanded && !card.element.hidden);
  say(at("expand"), closed ? "Show all details" : "Hide all details");
  if (many) drawFilters();
  const query = many ? at("search").value.trim().toLowerCase() : "";
  let shown = 0;
  for (const card of cards.values()) {
    const fits = (!many || filter === "all" || filter === card.word || (filter === "unhealthy" && card.complaint !== null))
      && card.name.toLowerCase().includes(query);
    show(card.element, fits);
    shown += fits;
  }
  show(at("none"), shown === 0 && cards.size > 0);
  say(at("connectors-title"), shown === cards.size ? "Connectors" : `Connectors: ${count(shown)} of ${count(cards.size)}`);
}

function drawFilters() {
  const words = [...cards.values()].map((card) => card.word);
  const unhealthy = [...cards.values()].filter((card) => card.complaint !== null).length;
  const counts = [["all", words.length], ["unhealthy", unhealthy],
    ...Object.keys(STATES).map((state) => [state, words.filter((word) => word === state).length])];
  for (const [name, number] of counts) {
    if (!buttons.has(name)) buttons.set(name, filterButton(name));
    const { button, label } = buttons.get(name);
    say(label, `${name} ${count(number)}`);
    show(button, number > 0 || name === "all" || name === filter);
    set(button, "aria-pressed", String(name === filter));
  }
}

function filterButton(name) {
  const label = make("span");
  const button = make("button", "filter", ...(Object.hasOwn(STATES, name) ? [icon(stateOf(name).icon)] : []), label);
  button.type = "button";
  set(button, "data-tone", Object.hasOwn(STATES, name) ? stateOf(name).tone : "");
  button.addEventListener("click", () => {
    filter = name;
    drawTools();
  });
  at("filters").append(button);
  return { button, label };
}

at("search").addEventListener("input", drawTools);
at("expand").addEventListener("click", () => {
  const shown = [...cards.values()].filter((card) => !card.element.hidden);
  const expanded = shown.some((card) => !card.expanded);
  for (const card of shown) card.expand(expanded);
  drawTools();
});
addEventListener("keydown", (event) => {
  if (event.key === "/" && !at("tools").hidden && document.activeElement !== at("search")) {
    event.preventDefault();
    at("search").focus();
  }
});

connect();
setInterval(drawHead, 1000);
setInterval(watch, POLL);
