// The live page of a wizard server. Whatever the server tells goes into the page as text, never as HTML.

const LOOK_EVERY = 2000; // milliseconds between two looks at the whole state
const LOOK_LEAST = 500; // at least so many, however much happens
const SILENCE = 25000; // a stream of events that says nothing for so long is dead: it pings every 10 s
const LONGEST_LOOK = 10000;
const BACKOFF = [1, 2, 4, 8, 15]; // seconds
const KEY = "wizard.key";
const EVENTS = "breaker_changed,actor_changed,request_began,attempt_ended,request_ended";
const WORST = ["idle", "stopped", "running", "starting", "backoff", "crashed", "down"]; // states, the worst last

const $ = (id) => document.getElementById(id);

/** Nobody may see this, or not with this key. */
class Denied extends Error {}

// -- drawing ---------------------------------------------------------------------------------------------

/** Return a new element; `children` are elements or texts. */
function el(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Set a text, leaving it alone where it is the same: a selection in it stays. */
function say(node, text) {
  if (node.textContent !== String(text)) node.textContent = text;
}

function mark(node, name, value) {
  if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

/** Make the children of `parent` show `items`, reusing those there are: focus and what is unfolded stay. */
function keyed(parent, items, key, make) {
  const had = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  items.forEach((item, index) => {
    const name = String(key(item));
    let child = had.get(name);
    had.delete(name);
    if (!child) {
      child = make(item);
      child.dataset.key = name;
    }
    if (parent.children[index] !== child) parent.insertBefore(child, parent.children[index] ?? null);
    child.show?.(item);
  });
  for (const child of had.values()) child.remove();
}

/** A bar for `part` of `whole`, with its numbers as text beside it. */
function bar(label) {
  const fill = el("span", { class: "fill" });
  const text = el("span", { class: "number" });
  const made = el("span", { class: "meter" }, el("span", { class: "track", "aria-hidden": "true" }, fill),
    el("span", { class: "unseen" }, `${label} `), text);
  made.showPart = (part, whole) => {
    const share = whole > 0 ? Math.min(1, part / whole) : 0;
    fill.style.width = `${part > 0 ? Math.max(3, share * 100) : 0}%`;
    mark(made, "data-level", share >= 0.9 ? "high" : share >= 0.6 ? "raised" : "fine");
    say(text, `${count(part)}/${count(whole)}`);
  };
  return made;
}

// -- numbers ---------------------------------------------------------------------------------------------

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SHORT = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const count = (number) => (number >= 100000 ? SHORT : WHOLE).format(number);
const tokensShort = (number) => ((number ?? 0) >= 10000 ? SHORT : WHOLE).format(number ?? 0);
const sum = (counts) => Object.values(counts ?? {}).reduce((total, each) => total + each, 0);
const percent = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(part && part / whole < 0.1 ? 1 : 0)} %` : "–");

function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.0995) return `${(value * 1000).toFixed(value < 0.00995 ? 1 : 0)} ms`;
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  return value < 99.5 ? `${value.toFixed(value < 9.95 ? 2 : 1)} s` : age(value);
}

function age(value) {
  const whole = Math.max(0, Math.round(value));
  if (whole < 100) return `${whole} s`;
  if (whole < 6000) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  const hours = Math.floor(whole / 3600);
  return hours < 48 ? `${hours} h ${Math.floor((whole % 3600) / 60)} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

function dollars(text) {
  const value = Number(text);
  if (!value) return "$0";
  return `$${value >= 100 ? WHOLE.format(value) : value >= 0.995 ? value.toFixed(2) : value.toPrecision(2)}`;
}

const bytes = (value) => (value < 1024 ? `${value} B` : value < 1048576 ? `${(value / 1024).toFixed(0)} kB` : `${(value / 1048576).toFixed(1)} MB`);
const words = (name) => name.replaceAll("_", " ");
const clock = (unix) => new Date(unix * 1000).toLocaleTimeString([], { hour12: false });

// -- the server ------------------------------------------------------------------------------------------

const headers = () => {
  const key = sessionStorage.getItem(KEY);
  return key ? { authorization: `Bearer ${key}` } : {};
};

/** Fetch what only admins see. Throws `Denied`, and an `Error` for what will pass. */
async function fetchSeen(path, signal) {
  const response = await fetch(path, { headers: headers(), cache: "no-store", signal });
  if (response.ok) return response;
  const message = await reason(response);
  if (response.status === 401 || response.status === 403) throw new Denied(message);
  throw new Error(message);
}

async function reason(response) {
  try {
    const { error } = await response.json();
    return error.message ?? `status ${response.status}`;
  } catch {
    return `status ${response.status}`;
  }
}

/** Yield the server-sent events of a response: `{name, data}`, null for a sign of life. */
async function* serverSent(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield null;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const event = { name: "message", data: "" };
        for (const line of part.split("\n")) {
          if (line.startsWith("event: ")) event.name = line.slice(7);
          else if (line.startsWith("data: ")) event.data += line.slice(6);
        }
        if (event.data) yield event;
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

// -- looking, again and again ----------------------------------------------------------------------------

let lastLook = 0;
let wakeLooking = () => {};
let wakeTrying = () => {};

/** Wait so long, or until `wake` is called. */
function pause(milliseconds, wakeable = () => {}) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    wakeable(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}

async function look(signal) {
  lastLook = performance.now();
  const limit = AbortSignal.timeout(LONGEST_LOOK);
  const response = await fetchSeen("api/state", signal ? AbortSignal.any([signal, limit]) : limit);
  draw(await response.json());
}

/** Look whenever something has happened, and now and then; in a tab that nobody sees, not at all. */
async function keepLooking(round) {
  try {
    while (!round.signal.aborted) {
      await pause(LOOK_EVERY, (wake) => (wakeLooking = wake));
      await pause(Math.max(0, lastLook + LOOK_LEAST - performance.now()));
      if (!document.hidden && !round.signal.aborted) await look(round.signal);
    }
  } catch (error) {
    round.abort(error);
  }
}

/** Hear what happens, until the server ends it. */
async function follow(round) {
  const response = await fetchSeen(`api/events?types=${EVENTS}`, round.signal);
  let watchdog = 0;
  try {
    for await (const event of serverSent(response)) {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => round.abort(new Error("the server has fallen silent")), SILENCE);
      if (event === null) continue;
      const told = JSON.parse(event.data);
      if (event.name === "end") throw told.code === "access_denied" ? new Denied(told.message) : new Error(told.message);
      heard(told.event);
    }
  } finally {
    clearTimeout(watchdog);
  }
  throw new Error("the server is gone");
}

function heard(event) {
  if (event?.type === "breaker_changed") say($("told"), `The circuit of ${event.model} is ${words(event.circuit)}.`);
  if (event?.type === "actor_changed") say($("told"), `The actor ${event.path} is ${event.state}.`);
  wakeLooking();
}

async function run() {
  let tries = 0;
  for (;;) {
    const round = new AbortController();
    try {
      await look();
      tries = 0;
      showConnected();
      keepLooking(round);
      await follow(round);
    } catch (error) {
      const why = round.signal.aborted ? round.signal.reason : error;
      round.abort(why);
      if (why instanceof Denied) await askForKey(why.message);
      else await waitForServer(why, BACKOFF[Math.min(tries++, BACKOFF.length - 1)]);
    }
  }
}

let lastState = null;

function showConnected() {
  $("sign-in").hidden = true;
  $("page").hidden = false;
  $("again").hidden = true;
  $("page").classList.remove("old");
  $("forget").hidden = !sessionStorage.getItem(KEY);
}

function status(state, text) {
  mark($("status"), "data-state", state);
  say($("status"), text);
}

async function waitForServer(error, wait) {
  const stops = /server stops/.test(error.message);
  $("page").classList.add("old");
  $("again").hidden = false;
  status("gone", stops ? "the server is stopping" : "the server is gone");
  const until = performance.now() + wait * 1000 * (0.8 + 0.4 * Math.random());
  let woken = false;
  while (!woken && performance.now() < until) {
    say($("again"), `Try now (${Math.ceil((until - performance.now()) / 1000)} s)`);
    await pause(Math.min(1000, until - performance.now()), (wake) => (wakeTrying = () => { woken = true; wake(); }));
  }
  say($("again"), "Try now");
}

async function askForKey(message) {
  const had = sessionStorage.getItem(KEY);
  sessionStorage.removeItem(KEY);
  status("denied", "a key is needed");
  $("page").hidden = true;
  $("again").hidden = true;
  $("forget").hidden = true;
  $("sign-in").hidden = false;
  say($("key-wrong"), had ? `That will not do: ${message}.` : "");
  $("key").value = "";
  $("key").focus();
  await new Promise((resolve) => $("key-form").addEventListener("submit", resolve, { once: true }));
  sessionStorage.setItem(KEY, $("key").value.trim());
  $("key").value = "";
  status("waiting", "connecting");
}

$("key-form").addEventListener("submit", (event) => event.preventDefault());
$("again").addEventListener("click", () => wakeTrying());
$("forget").addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  location.reload();
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) {
    wakeLooking();
    wakeTrying();
  }
});

// -- all of it -------------------------------------------------------------------------------------------

function draw(state) {
  lastState = state;
  const { server, metrics } = state;
  say($("about"), `${server.version} · up ${age(server.uptime)}`);
  const troubles = troublesOf(state);
  status(server.draining ? "gone" : troubles.length ? "trouble" : "fine",
    server.draining ? "the server is stopping" : troubles.length ? `${troubles.length} to look at` : "all is well");
  document.title = troubles.length ? `(${troubles.length}) wizard` : "wizard";
  keyed($("troubles"), troubles, (each) => each.key, () => {
    const made = el("li");
    made.show = (each) => {
      mark(made, "data-level", each.level);
      say(made, each.text);
    };
    return made;
  });
  drawTotals(state);
  keyed($("models"), state.models, (model) => model.name, modelCard);
  keyed($("routes"), state.routes, (route) => route.name, routeRow);
  drawFailures(state.failures);
  drawProgress(state.in_progress, metrics, server);
  keyed($("tree"), [state.tree], (node) => node.path, treeNode);
  const actors = [...walk(state.tree)].filter((node) => node.lanes);
  const restarts = actors.reduce((total, node) => total + node.restarts, 0);
  say($("tree-count"), `${actors.length} actors, ${restarts} restart${restarts === 1 ? "" : "s"}`);
  drawChoice(state);
}

function troublesOf(state) {
  const found = [];
  for (const [name, model] of Object.entries(state.metrics.gauges.models)) {
    const circuit = state.circuits[name];
    const since = circuit ? ` for ${age(circuit.seconds)}` : "";
    if (model.circuit === "open") {
      const probe = circuit?.probe_in ? `, probed in ${age(Math.ceil(circuit.probe_in))}` : "";
      found.push({ key: `circuit ${name}`, level: "bad", text: `${name}: circuit open${since}${probe}` });
    } else if (model.circuit === "half_open") {
      found.push({ key: `circuit ${name}`, level: "warn", text: `${name}: circuit half open${since}, being probed` });
    }
    if (model.paused_for > 0) {
      found.push({ key: `pause ${name}`, level: "warn", text: `${name}: its provider asked to wait ${age(Math.ceil(model.paused_for))}` });
    }
    if (model.slots > 0 && model.slots_in_use >= model.slots && model.waiting > 0) {
      found.push({ key: `slots ${name}`, level: "warn", text: `${name}: full, ${count(model.waiting)} waiting` });
    }
  }
  for (const node of walk(state.tree)) {
    if (["crashed", "backoff", "down"].includes(node.state)) {
      found.push({ key: `actor ${node.path}`, level: "bad", text: `actor ${node.path} is ${node.state}${node.error ? `: ${node.error}` : ""}` });
    }
  }
  return found;
}

function* walk(node) {
  yield node;
  for (const child of node.children) yield* walk(child);
}

function drawTotals({ metrics, server }) {
  const { requests, gauges, cache } = metrics;
  const answered = sum(requests.answered);
  const failed = sum(requests.failed);
  const stood = (requests.answered.stale ?? 0) + (requests.answered.static ?? 0);
  const looks = sum(cache) - (cache.bypass ?? 0);
  const hits = (cache.hit ?? 0) + (cache.follow ?? 0);
  const figures = [
    ["In flight", count(gauges.in_flight), `of ${count(server.max_in_flight)}, peak ${count(metrics.peak_in_flight)}`],
    ["Answered", count(answered), stood ? `${count(stood)} by a stand-in` : `${count(requests.answered.fallback ?? 0)} by a fallback`],
    ["Failed", count(failed), `${percent(failed, answered + failed)}${requests.shed ? `, ${count(requests.shed)} shed` : ""}`, failed ? "bad" : ""],
    ["Latency", seconds(requests.duration.p50), `p99 ${seconds(requests.duration.p99)}`],
    ["First token", seconds(requests.first_token.p50), `p99 ${seconds(requests.first_token.p99)}`],
    ["Retry budget", server.retry_budget === null ? "off" : gauges.budget.toFixed(1),
      server.retry_budget === null ? "without bound" : `of ${count(server.retry_budget)}`,
      server.retry_budget !== null && gauges.budget < 1 ? "bad" : ""],
    ["Cache", gauges.cache && server.cache_entries ? percent(hits, looks) : "off",
      gauges.cache && server.cache_entries ? `${count(gauges.cache.entries)} kept, ${bytes(gauges.cache.bytes)}` : ""],
    ["Cost", dollars(requests.cost), `${tokensShort(requests.input_tokens)} in, ${tokensShort(requests.output_tokens)} out`],
  ];
  keyed($("totals"), figures, (each) => each[0], ([name]) => {
    const value = el("dd", { class: "figure number" });
    const more = el("dd", { class: "quiet number" });
    const made = el("div", {}, el("dt", {}, name), value, more);
    made.show = ([, shown, beside, level]) => {
      say(value, shown);
      say(more, beside);
      mark(made, "data-level", level || "fine");
    };
    return made;
  });
}

// -- models ----------------------------------------------------------------------------------------------

function modelCard({ name }) {
  const title = el("h3", {}, name);
  const provider = el("p", { class: "quiet provider" });
  const circuit = el("span", { class: "pill circuit" });
  const slots = bar("slots in use");
  const beside = el("span", { class: "quiet number" });
  const limiter = el("dd", { class: "number" });
  const cells = {};
  const cell = (id) => (cells[id] = el("td", { class: "number" }));
  const table = el("table", {},
    el("thead", {}, el("tr", {}, el("td"), el("th", { scope: "col" }, "p50"), el("th", { scope: "col" }, "p99"))),
    el("tbody", {},
      el("tr", {}, el("th", { scope: "row" }, "latency"), cell("duration50"), cell("duration99")),
      el("tr", {}, el("th", { scope: "row" }, "first token"), cell("first50"), cell("first99"))));
  const attempts = el("dd", { class: "number" });
  const failures = el("dd", { class: "number" });
  const kinds = el("p", { class: "kinds quiet number" });
  const tokens = el("dd", { class: "number" });
  const cost = el("dd", { class: "number" });
  const pair = (label, value) => el("div", {}, el("dt", {}, label), value);
  const made = el("article", { class: "panel model", "aria-label": `Model ${name}` },
    el("div", { class: "row spread head" }, el("div", { class: "names" }, title, provider), circuit),
    el("dl", { class: "pairs wide" },
      pair("slots", el("dd", { class: "row" }, slots, beside)),
      pair("limiter", limiter)),
    el("div", { class: "halves" }, table,
      el("dl", { class: "pairs" }, pair("attempts", attempts), pair("failures", failures), pair("tokens", tokens), pair("cost", cost))),
    kinds);
  made.show = (model) => {
    const gauge = lastState.metrics.gauges.models[name];
    const counted = lastState.metrics.models[name];
    const since = lastState.circuits[name];
    say(provider, model.model === name ? model.provider : `${model.provider} · ${model.model}`);
    const state = !model.enabled ? "off" : gauge?.circuit ?? "unknown";
    mark(made, "data-circuit", state);
    mark(circuit, "data-state", state);
    say(circuit, state === "off" ? "disabled" : `circuit ${words(state)}`);
    mark(circuit, "title", since ? `for ${age(since.seconds)}` : "since the start");
    slots.showPart(gauge?.slots_in_use ?? 0, gauge?.slots ?? 0);
    say(beside, gauge?.waiting ? `${count(gauge.waiting)} waiting` : "");
    say(limiter, limiterText(gauge));
    mark(limiter, "data-level", gauge?.paused_for ? "warn" : "fine");
    say(cells.duration50, seconds(counted?.duration.p50));
    say(cells.duration99, seconds(counted?.duration.p99));
    say(cells.first50, seconds(counted?.first_token.p50));
    say(cells.first99, seconds(counted?.first_token.p99));
    const failed = sum(counted?.failed);
    const unsent = sum(counted?.unsent);
    const sent = (counted?.began ?? 0) - unsent;
    say(attempts, count(counted?.began ?? 0));
    say(failures, failed ? `${count(failed)} (${percent(failed, sent)})` : "0");
    mark(failures, "data-level", failed ? "bad" : "fine");
    say(kinds, kindsText(counted));
    say(tokens, `${tokensShort(counted?.input_tokens)} in, ${tokensShort(counted?.output_tokens)} out`);
    say(cost, counted?.unpriced ? (Number(counted.cost) ? `${dollars(counted.cost)} + ${count(counted.unpriced)} unpriced` : "unknown") : dollars(counted?.cost));
  };
  return made;
}

function limiterText(gauge) {
  if (!gauge) return "–";
  const parts = [];
  if (gauge.paused_for > 0) parts.push(`paused ${age(Math.ceil(gauge.paused_for))}`);
  parts.push(`${count(gauge.limiter_waiting)} waiting`);
  if (gauge.remaining_requests !== null) parts.push(`${count(Math.floor(gauge.remaining_requests))} req left`);
  if (gauge.remaining_tokens !== null) parts.push(`${tokensShort(Math.floor(gauge.remaining_tokens))} tok left`);
  return parts.join(" · ");
}

function kindsText(counted) {
  const kinds = { ...counted?.failed };
  for (const [code, times] of Object.entries(counted?.unsent ?? {})) kinds[`${code}, not sent`] = times;
  const sorted = Object.entries(kinds).sort((one, other) => other[1] - one[1]).slice(0, 4);
  return sorted.map(([code, times]) => `${count(times)} × ${words(code)}`).join(" · ");
}

// -- routes, and requests in flight ----------------------------------------------------------------------

function routeRow({ name }) {
  const strategy = el("span", { class: "quiet" });
  const chain = el("p", { class: "chain" });
  const counts = el("p", { class: "quiet number" });
  const made = el("li", { class: "line" }, el("p", { class: "row spread" }, el("strong", {}, name), strategy), chain, counts);
  made.show = (route) => {
    say(strategy, words(route.strategy));
    keyed(chain, route.chain, (model) => model, (model) => {
      const link = el("span", { class: "link" }, model);
      link.show = () => mark(link, "data-circuit", lastState.metrics.gauges.models[model]?.circuit ?? "closed");
      return link;
    });
    const seen = lastState.metrics.routes[name];
    say(counts, seen
      ? `${count(sum(seen.answered))} answered · ${count(sum(seen.failed))} failed · p50 ${seconds(seen.duration.p50)} · p99 ${seconds(seen.duration.p99)}`
      : "not asked yet");
  };
  return made;
}

function drawProgress(requests, metrics, server) {
  say($("progress-count"), `${count(metrics.gauges.in_flight)} of ${count(server.max_in_flight)}`);
  $("no-progress").hidden = requests.length > 0;
  keyed($("progress"), requests.slice(0, 8), (request) => request.request_id, () => {
    const what = el("span", { class: "what" });
    const time = el("span", { class: "number" });
    const made = el("li", { class: "row spread" }, what, time);
    made.show = (request) => {
      const doing = request.model ? `${request.answering ? "←" : "→"} ${request.model}` : "waiting";
      const tried = request.attempts_ended ? `, after ${request.attempts_ended} failed` : "";
      say(what, `${request.route} ${doing}${request.answering ? " answers" : ""}${tried}`);
      say(time, seconds(request.seconds));
    };
    return made;
  });
}

// -- failures --------------------------------------------------------------------------------------------

function drawFailures(failures) {
  $("no-failures").hidden = failures.length > 0;
  say($("failures-count"), failures.length ? `the last ${failures.length}` : "");
  keyed($("failures"), failures, (each) => `${each.request_id} ${each.time}`, failureRow);
}

function failureRow(failure) {
  const lost = failure.code !== null && failure.code !== "cancelled";
  const became = lost ? words(failure.code) : failure.code === "cancelled" ? "caller left" : `answered by ${failure.model ?? failure.served_by}`;
  const first = failure.tried.find((each) => each.error && each.sent) ?? failure.tried.find((each) => each.error);
  const summary = el("summary", {},
    el("time", { class: "number quiet", datetime: new Date(failure.time * 1000).toISOString() }, clock(failure.time)),
    el("span", { class: "pill", "data-state": lost ? "bad" : "saved" }, lost ? "failed" : "recovered"),
    el("span", { class: "what" }, lost ? became : `${words(first?.error.code ?? "failure")} → ${became}`),
    el("span", { class: "quiet number tried" }, `${failure.attempts} attempt${failure.attempts === 1 ? "" : "s"}`),
    el("span", { class: "number took" }, seconds(failure.seconds)));
  const rows = failure.tried.map((each) => {
    const result = each.cancelled ? "cancelled" : each.error ? words(each.error.code) : "answered";
    return el("tr", {},
      el("td", { class: "number" }, String(each.number)),
      el("th", { scope: "row" }, each.model, ...(each.hedge ? [" (hedge)"] : [])),
      el("td", {},
        el("span", { class: each.error ? "bad-text" : each.cancelled ? "quiet" : "good-text" }, result),
        ...(each.error?.status ? [` HTTP ${each.error.status}`] : []),
        ...(each.sent ? [] : [" (not sent)"]),
        ...(each.error ? [el("p", { class: "quiet message" }, each.error.message)] : [])),
      el("td", { class: "number" }, seconds(each.waited)),
      el("td", { class: "number" }, each.sent ? seconds(each.seconds) : "–"));
  });
  const head = ["#", "model", "result", "waited", "took"].map((name) => el("th", { scope: "col" }, name));
  return el("li", {}, el("details", {}, summary,
    el("div", { class: "within" },
      el("p", { class: "quiet" }, `route ${failure.route}, ${words(failure.strategy)} · request `, el("code", {}, failure.request_id)),
      rows.length
        ? el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows))
        : el("p", {}, "No model was asked."))));
}

// -- the supervision tree --------------------------------------------------------------------------------

function treeNode(node) {
  return node.lanes ? actorRow(node) : groupRow(node);
}

function stateCell() {
  const made = el("span", { class: "pill state" });
  made.showState = (state) => {
    mark(made, "data-state", state);
    say(made, state);
  };
  return made;
}

function restartsCell() {
  const made = el("span", { class: "restarts number" });
  made.showRestarts = (restarts) => {
    mark(made, "data-level", restarts ? "warn" : "fine");
    made.replaceChildren(el("span", { class: "word" }, "restarts "), String(restarts));
  };
  return made;
}

function actorRow(node) {
  const state = stateCell();
  const restarts = restartsCell();
  const asks = bar("asks");
  const tells = bar("tells");
  const grants = el("span", { class: "grants number" });
  const error = el("p", { class: "bad-text message" });
  const waiting = el("span", { class: "quiet" });
  const made = el("li", {}, el("div", { class: "actor" }, el("span", { class: "what" }, node.name, " ", waiting), restarts,
    el("span", { class: "lane" }, asks), el("span", { class: "lane" }, tells), grants, state), error);
  made.show = ({ lanes, ...now }) => {
    state.showState(now.state);
    restarts.showRestarts(now.restarts);
    asks.showPart(lanes.asks, lanes.asks_bound);
    tells.showPart(lanes.tells, lanes.tells_bound);
    say(waiting, lanes.senders_waiting ? `${count(lanes.senders_waiting)} in the waiting room` : "");
    grants.replaceChildren(el("span", { class: "word" }, "grants "), count(lanes.grants));
    say(error, now.error ? `last error: ${now.error}` : "");
  };
  return made;
}

function groupRow(node) {
  const state = stateCell();
  const restarts = restartsCell();
  const inside = el("span", { class: "quiet" });
  const error = el("p", { class: "bad-text message" });
  const list = el("ul", { class: "plain" });
  const details = el("details", {}, el("summary", { class: "actor" },
    el("span", { class: "what" }, node.name, " ", inside), restarts, state), error, list);
  details.open = node.path.split("/").length < 3;
  let wasWell = true;
  const made = el("li", {}, details);
  made.show = (now) => {
    const all = [...walk(now)];
    const worst = all.map((each) => each.state).reduce((one, other) => (WORST.indexOf(other) > WORST.indexOf(one) ? other : one));
    const well = WORST.indexOf(worst) <= WORST.indexOf("running");
    if (wasWell && !well) details.open = true; // what has broken shows itself, once
    wasWell = well;
    state.showState(worst);
    restarts.showRestarts(all.reduce((total, each) => total + each.restarts, 0));
    say(inside, `${now.children.length}`);
    say(error, now.error ? `last error: ${now.error}` : "");
    keyed(list, now.children, (each) => each.path, treeNode);
  };
  return made;
}

for (const [id, open] of [["unfold", true], ["fold", false]]) {
  $(id).addEventListener("click", () => {
    for (const each of $("tree").querySelectorAll("details")) each.open = open || each.parentElement.parentElement === $("tree");
  });
}

// -- asking ----------------------------------------------------------------------------------------------

function drawChoice({ routes, models }) {
  const groups = [["Routes", routes.map((each) => each.name)], ["Models", models.filter((each) => each.enabled).map((each) => each.name)]];
  const names = JSON.stringify(groups);
  if ($("whom").dataset.names === names) return;
  const chosen = $("whom").value;
  $("whom").dataset.names = names;
  $("whom").replaceChildren(...groups.map(([label, each]) => el("optgroup", { label }, ...each.map((name) => el("option", { value: name }, name)))));
  if (chosen && groups.some(([, each]) => each.includes(chosen))) $("whom").value = chosen;
}

let asking = null;

async function ask() {
  const prompt = $("prompt").value.trim();
  if (asking || !prompt) return;
  asking = new AbortController();
  const began = performance.now();
  const took = () => (performance.now() - began) / 1000;
  const facts = [];
  for (const id of ["answer", "answer-error", "answer-facts"]) say($(id), "");
  showAsking(true);
  say($("answer-facts"), "waiting for the first word");
  try {
    const response = await fetch("v1/chat/completions", {
      method: "POST",
      headers: { ...headers(), "content-type": "application/json" },
      body: JSON.stringify({
        model: $("whom").value,
        messages: [{ role: "user", content: prompt }],
        stream: true,
        stream_options: { include_usage: true },
      }),
      signal: asking.signal,
    });
    facts.push(...factsOf(response));
    if (!response.ok) throw new Error(await reason(response));
    await take(response, facts, took);
    facts.push(`${seconds(took())} in all`);
  } catch (error) {
    const stopped = asking.signal.aborted;
    say($("answer-error"), stopped ? "" : `${error.message}`);
    facts.push(stopped ? `stopped after ${seconds(took())}` : `failed after ${seconds(took())}`);
  } finally {
    asking = null;
    showAsking(false);
    say($("answer-facts"), facts.join(" · "));
  }
}

/** A button that cannot be used any more hands the focus on. */
function showAsking(now) {
  const [off, on] = now ? [$("send"), $("stop")] : [$("stop"), $("send")];
  const focused = document.activeElement === off;
  on.disabled = false;
  if (focused) (now ? on : $("prompt")).focus();
  off.disabled = true;
  mark($("answer"), "aria-busy", now);
}

function factsOf(response) {
  const attempts = response.headers.get("x-wizard-attempts");
  const by = response.headers.get("x-wizard-served-by");
  const facts = [];
  if (attempts !== null) facts.push(`${attempts} attempt${attempts === "1" ? "" : "s"}`);
  if (by && by !== "direct") facts.push(by === "cache" ? "from the cache" : `by ${words(by)}`);
  return facts;
}

async function take(response, facts, took) {
  let model = "";
  let usage = null;
  const show = () => say($("answer-facts"), facts.join(" · "));
  for await (const event of serverSent(response)) {
    if (event === null) continue;
    if (event.data === "[DONE]") {
      if (usage) facts.push(`${count(usage.prompt_tokens)} tokens in, ${count(usage.completion_tokens)} out`);
      return;
    }
    const chunk = JSON.parse(event.data);
    if (chunk.error) throw new Error(chunk.error.message);
    usage = chunk.usage ?? usage;
    const text = chunk.choices?.[0]?.delta?.content;
    if (!model && chunk.model) facts.unshift(`answered by ${(model = chunk.model)}`);
    if (!text) continue;
    if (!$("answer").textContent) facts.push(`first word after ${seconds(took())}`);
    $("answer").append(text);
    $("answer").scrollTop = $("answer").scrollHeight;
    show();
  }
  throw new Error("the answer broke off");
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
$("stop").addEventListener("click", () => asking?.abort());
$("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    ask();
  }
});

run();
