// Numbers, times and states in words. What is unknown is "–".

export const UNKNOWN = "–";

const known = (value) => typeof value === "number" && Number.isFinite(value);
const digits = (most) => new Intl.NumberFormat("en", { maximumFractionDigits: most });
const formats = [0, 1, 2].map(digits);

/** 1,234,567 */
export function count(value) {
  return known(value) ? formats[0].format(value) : UNKNOWN;
}

/** Up to three digits that mean something: 0.25, 3.4, 128, 12,345 */
export function figure(value) {
  if (!known(value)) return UNKNOWN;
  const size = Math.abs(value);
  return formats[size >= 100 || size === 0 ? 0 : size >= 10 ? 1 : 2].format(value);
}

/** 1.5 MiB */
export function bytes(value) {
  if (!known(value)) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${figure(value)} ${units[unit]}`;
}

/** 12 s, 3 min 5 s, 2 h 10 min, 4 d 3 h */
export function duration(seconds) {
  if (!known(seconds)) return UNKNOWN;
  if (seconds < 1) return `${formats[seconds < 0.1 ? 2 : 1].format(seconds)} s`;
  if (seconds < 10) return `${formats[1].format(seconds)} s`;
  const whole = Math.round(seconds);
  const steps = [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]];
  for (const [big, bigName, small, smallName] of steps) {
    if (whole >= big) {
      const rest = Math.floor((whole % big) / small);
      return `${count(Math.floor(whole / big))} ${bigName}${rest ? ` ${rest} ${smallName}` : ""}`;
    }
  }
  return `${whole} s`;
}

/** 3 min 5 s ago */
export function ago(seconds) {
  return known(seconds) ? `${duration(Math.max(0, seconds))} ago` : UNKNOWN;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const shortClock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

/** 14:32:05, with the day if it is not today. Takes milliseconds. */
export function time(millis) {
  const date = new Date(millis);
  const today = date.toDateString() === new Date().toDateString();
  return today ? clock.format(date) : `${day.format(date)}, ${clock.format(date)}`;
}

/** 14:32 */
export function minute(millis) {
  return shortClock.format(new Date(millis));
}

export function plural(number, one, many) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** States by how much they need a person, with an icon (a path in 16 x 16) and a tone. */
export const STATES = {
  halted: { rank: 0, tone: "bad", icon: "M5 1h6l4 4v6l-4 4H5l-4-4V5zM8 4v5M8 11v1" },
  stalled: { rank: 1, tone: "wait", icon: "M3 1h10M3 15h10M4 1c0 5 4 5 4 7s-4 2-4 7M12 1c0 5-4 5-4 7s4 2 4 7" },
  blocked: { rank: 2, tone: "wait", icon: "M2 2h12v12H2zM6 5v6M10 5v6" },
  restarting: { rank: 3, tone: "wait", icon: "M14 8a6 6 0 1 1-2-4.5M14 1v4h-4" },
  starting: { rank: 4, tone: "calm", icon: "M8 1v3M8 12v3M1 8h3M12 8h3M3 3l2 2M11 11l2 2M13 3l-2 2M5 11l-2 2" },
  draining: { rank: 5, tone: "calm", icon: "M8 1v10M4 7l4 4 4-4M2 15h12" },
  stopped: { rank: 6, tone: "calm", icon: "M3 3h10v10H3z" },
  finished: { rank: 8, tone: "calm", icon: "M2 8.5l4 4 8-9" },
  running: { rank: 7, tone: "good", icon: "M8 1a7 7 0 1 0 .01 0M4.5 8.5l2.5 2.5 4.5-5.5" },
};
const OTHER = { rank: 4, tone: "calm", icon: "M8 1a7 7 0 1 0 .01 0M3.1 12.9l9.8-9.8" };

export function stateOf(word) {
  return Object.hasOwn(STATES, word) ? STATES[word] : OTHER;
}

/** The complaint of a connector, or null; made of older fields where there is none. */
export function complaintOf(connector) {
  if (connector.complaint) return connector.complaint;
  if (connector.healthy !== false) return null;
  const error = connector.last_error;
  return {
    state: connector.state === "running" ? "stalled" : connector.state,
    since: connector.state_since,
    cause: connector.state_detail ?? error?.cause,
    remedy: error?.remedy,
  };
}

/** What all connectors together amount to: words, a tone, and the state whose icon fits. */
export function verdict(words) {
  const total = words.length;
  const of = (number) => total === 1 ? "The connector" : `${count(number)} of ${plural(total, "connector", "connectors")}`;
  const number = (...states) => words.filter((word) => states.includes(word)).length;
  const halted = number("halted");
  const waits = ["stalled", "blocked", "restarting"];
  const stuck = number(...waits);
  const starting = number("starting");
  const ending = number("draining", "stopped");
  if (halted) return { text: `${of(halted)} need${halted === 1 ? "s" : ""} you`, state: "halted" };
  if (stuck) return { text: `${of(stuck)} ${stuck === 1 ? "does" : "do"} not deliver`, state: waits.find((word) => number(word)) };
  if (ending) return { text: "mrcond is stopping", state: "draining" };
  if (starting) return { text: `${of(starting)} ${starting === 1 ? "is" : "are"} starting`, state: "starting" };
  if (total === 0) return { text: "There are no connectors", state: "stopped" };
  return { text: total === 1 ? "The connector runs" : `All ${count(total)} connectors run`, state: "running" };
}
