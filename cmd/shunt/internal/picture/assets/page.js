"use strict";

// The page: it asks the engine, and shows the answer as a diagram, a story, and the rules.

const $ = (id) => document.getElementById(id);

/** make makes an HTML element with attributes and children. */
function make(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== undefined && value !== false && value !== "") made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== undefined && child !== null && child !== ""));
  return made;
}

const calm = matchMedia("(prefers-reduced-motion: reduce)");

const state = {
  engine: null, subjects: [], subject: 0, mode: 0, family: 4,
  views: new Map(), journey: null, branch: [], steps: [], at: 0, playing: false, diagram: null, stopRun: null, timer: 0,
};

/* ---- the engine ---- */

async function start() {
  const gzip = Uint8Array.from(atob($("engine").textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([gzip]).stream().pipeThrough(new DecompressionStream("gzip"));
  const go = new Go();
  const { instance } = await WebAssembly.instantiate(await new Response(stream).arrayBuffer(), go.importObject);
  go.run(instance);
  const text = $("document").textContent;
  const call = (f, ...args) => {
    const answer = JSON.parse(f(...args));
    if (answer.error) throw new Error(answer.error);
    return answer;
  };
  call(globalThis.shuntOpen, text);
  state.engine = {
    view: (subject, mode) => call(globalThis.shuntView, subject, mode),
    ask: (subject, mode, question) => call(globalThis.shuntAsk, subject, mode, JSON.stringify(question)),
  };
  const { Subjects, Asked } = JSON.parse(text);
  state.subjects = Subjects.map(({ Name, Modes }) => ({ name: Name, modes: Modes.map(({ Name: name, Current }) => ({ name, current: Current })) }));
  state.asked = Asked;
}

/** view returns what there is to draw of a pod in a mode. */
function view(subject = state.subject, mode = state.mode) {
  const key = `${subject}/${mode}`;
  if (!state.views.has(key)) state.views.set(key, state.engine.view(subject, mode));
  return state.views.get(key);
}

const side = () => view().shapes.find(({ family }) => family === state.family);
const pathsOf = (family) => view().paths.filter((path) => path.family === family && path.question.to);
const paths = () => pathsOf(state.family);

/** endpoint prints an address and, if it is known, a port. */
function endpoint(address, port) {
  if (!port) return address;
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

/* ---- the question ---- */

/** asked returns the question that the form holds, in the words of the command line. */
function asked() {
  const form = $("question");
  const from = form.elements.from.value;
  const field = (name) => form.elements[name].value.trim();
  return {
    from: from === "outside" ? field("address") : from, to: field("to"), udp: form.elements.protocol.value === "udp",
    uid: field("uid"), gid: field("gid"), mark: field("mark"),
  };
}

/** fill puts a question into the form. */
function fill(question) {
  const form = $("question");
  form.elements.from.value = inside(question.from) ? question.from : "outside";
  if (!inside(question.from)) form.elements.address.value = question.from;
  form.elements.to.value = question.to;
  form.elements.protocol.value = question.udp ? "udp" : "tcp";
  for (const name of ["uid", "gid", "mark"]) form.elements[name].value = question[name] ?? "";
  if (question.uid || question.gid || question.mark) expand(true);
  arrange();
}

/** arrange shows the fields that the question needs. */
function arrange() {
  const outside = $("question").elements.from.value === "outside";
  $("client").hidden = !outside;
  $("fields").classList.toggle("inside", !outside);
  if (outside && !$("source-address").value) {
    $("source-address").value = paths().find(({ question }) => !inside(question.from))?.question.from ?? "";
  }
}

function expand(open) {
  $("extra").hidden = !open;
  $("more").setAttribute("aria-expanded", String(open));
}

const familyOf = (address) => (/^\[|:.*:/.test(address) ? 6 : 4);

/** counterpart returns the same question in the other family: the path of the same name, or else with addresses that stand for the same. */
function counterpart(question, family) {
  const known = pathsOf(family === 4 ? 6 : 4), others = pathsOf(family);
  const like = ({ name, about }, i, all) => others.filter((other) => other.name === name && other.about === about)[
    all.slice(0, i).filter((before) => before.name === name && before.about === about).length];
  const same = known.findIndex((path) => sameQuestion(path.question, question));
  if (same >= 0 && like(known[same], same, known)) return like(known[same], same, known).question;
  const addresses = new Map();
  const split = (text) => (/^[^:]*$|^[^[]*:.*:/.test(text) ? [text, ""] : [text.replace(/:\d+$/, "").replace(/[[\]]/g, ""), /:(\d+)$/.exec(text)?.[1] ?? ""]);
  known.forEach((path, i) => {
    const other = like(path, i, known);
    if (!other) return;
    addresses.set(split(path.question.to)[0], split(other.question.to)[0]);
    if (!inside(path.question.from)) addresses.set(split(path.question.from)[0], split(other.question.from)[0]);
  });
  const stranger = others.find(({ name }) => name === "out")?.question.to;
  const translate = (text) => {
    const [address, port] = split(text);
    return endpoint(addresses.get(address) ?? (stranger ? split(stranger)[0] : address), port);
  };
  return { ...question, from: inside(question.from) ? question.from : translate(question.from), to: translate(question.to) };
}

const inside = (from) => from === "app" || from === "proxy";

function sameQuestion(a, b) {
  return a.from === b.from && a.to === b.to && Boolean(a.udp) === Boolean(b.udp) &&
    ["uid", "gid", "mark"].every((name) => (a[name] ?? "") === (b[name] ?? ""));
}

/** ask walks the form's question and shows the answer, or a branch of it, from a step on. */
function ask(at, branch = []) {
  const question = asked();
  halt();
  const inputs = { to: $("to"), from: $("source-address"), uid: $("uid"), gid: $("gid"), mark: $("mark") };
  for (const input of Object.values(inputs)) input.removeAttribute("aria-invalid");
  let journey;
  try {
    journey = state.engine.ask(state.subject, state.mode, question);
  } catch (problem) {
    $("problem").textContent = problem.message;
    for (const [name, input] of Object.entries(inputs)) {
      if (new RegExp(`^${name}:`, "m").test(problem.message)) input.setAttribute("aria-invalid", "true");
    }
    return;
  }
  $("problem").textContent = "";
  $("summary").textContent = `${question.from} → ${question.to} ${question.udp ? "UDP" : "TCP"}`;
  const family = familyOf(question.to);
  if (family !== state.family) {
    state.family = family;
    settle();
  }
  state.journey = journey;
  state.branch = branch;
  for (const button of $("paths").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(sameQuestion(paths()[Number(button.dataset.path)].question, question)));
  }
  const exception = paths().findIndex((path) => path.name === "exception" && sameQuestion(path.question, question));
  $("exception").value = exception >= 0 ? String(exception) : "none";
  $("exception").classList.toggle("chosen", exception >= 0);
  tell(at);
}

/* ---- the link ---- */

function linkOf() {
  const question = asked();
  const subject = state.subjects[state.subject];
  const words = new URLSearchParams();
  if (state.subject > 0) words.set("pod", String(state.subject));
  if (subject.modes.length > 1) words.set("mode", subject.modes[state.mode].name);
  words.set("from", question.from);
  words.set("to", question.to);
  if (question.udp) words.set("udp", "1");
  for (const name of ["uid", "gid", "mark"]) if (question[name]) words.set(name, question[name]);
  if (state.branch.length) words.set("branch", state.branch.join("."));
  words.set("step", String(state.at + 1));
  return `#${words}`;
}

/** follow restores what a link carries; it returns whether there was a question. */
function follow(link) {
  const words = new URLSearchParams(link.replace(/^#/, ""));
  const subject = Number(words.get("pod") ?? 0);
  if (Number.isInteger(subject) && subject >= 0 && subject < state.subjects.length) state.subject = subject;
  const { modes } = state.subjects[state.subject];
  const mode = modes.findIndex(({ name }) => name === words.get("mode"));
  state.mode = mode >= 0 ? mode : Math.max(0, modes.findIndex(({ current }) => current));
  if (!words.get("to")) return false;
  state.family = familyOf(words.get("to"));
  settle();
  fill({
    from: words.get("from") ?? "app", to: words.get("to"), udp: words.get("udp") === "1",
    uid: words.get("uid") ?? "", gid: words.get("gid") ?? "", mark: words.get("mark") ?? "",
  });
  const branch = (words.get("branch") ?? "").split(".").filter((way) => way === "if" || way === "unless");
  ask(Math.max(0, Number(words.get("step") ?? 1) - 1 || 0), branch);
  return true;
}

function remember() {
  try {
    history.replaceState(null, "", linkOf());
  } catch {
    // A browser that allows no history for files still shows the page.
  }
}

/* ---- the steps ---- */

const hookNames = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/** stepsOf turns the legs of a journey into steps, each at a node of the diagram. */
function stepsOf(journey) {
  const steps = [];
  journey.legs.forEach((leg, number) => {
    const to = arrives(journey, number);
    const common = { leg: number, answer: Boolean(leg.answer), colour: connectionOf(journey, number) === 0 ? "one" : "two" };
    let node = leg.from;
    steps.push({ ...common, node, from: "", met: [], changes: [], place: leg.from, says: "sends", start: true });
    let between = node;
    leg.hooks.forEach((hook) => {
      if (hook.name === "ROUTING") {
        const again = between === "OUTPUT";
        const at = again ? "OUTPUT" : between === "PREROUTING" ? "routeIn" : "routeOut";
        steps.push({ ...common, node: at, from: between, met: [], changes: [], place: again ? "routing, again" : "routing", says: hook.route });
        between = at;
        return;
      }
      if (!hookNames.includes(hook.name)) return;
      const met = [], changes = [], skipped = [];
      for (const pass of hook.passes ?? []) {
        if (pass.skipped) skipped.push(`${pass.table}: ${pass.skipped}`);
        met.push(...(pass.met ?? []).filter((one) => one.number > 0 || one.does === "DROP"));
        changes.push(...(pass.changes ?? []));
      }
      steps.push({ ...common, node: hook.name, from: between, met, changes, skipped, place: hook.name, says: "", passes: hook.passes ?? [] });
      between = hook.name;
    });
    if (to) steps.push({ ...common, node: to, from: between, met: [], changes: [], place: to, says: leg.outcome, end: true });
    else Object.assign(steps[steps.length - 1], { outcome: leg.outcome, stop: journey.fork || leg.fate === "unknown" ? "doubt" : "bad" });
  });
  return steps;
}

/** connectionOf returns the connection that a leg belongs to: answers come in the opposite order. */
function connectionOf({ legs }, number) {
  if (!legs[number].answer) return number;
  return 2 * legs.filter(({ answer }) => !answer).length - 1 - number;
}

/** arrives returns whom a leg gets to: app, proxy, outside, or null. */
function arrives(journey, number) {
  const leg = journey.legs[number];
  const last = number === journey.legs.length - 1;
  if (["drop", "reject", "unknown"].includes(leg.fate) || last && (journey.fork || journey.end.kind === "lost")) return null;
  if (leg.answer) return journey.legs[connectionOf(journey, number)].from;
  const hook = leg.hooks[leg.hooks.length - 1]?.name;
  if (hook === "POSTROUTING") return "outside";
  if (hook !== "INPUT" || leg.fate === "local") return null;
  const { inbound, outbound, dns } = view().proxy;
  return [inbound, outbound, dns].includes(leg.port || leg.packet.dstPort) ? "proxy" : "app";
}

/** current returns the journey that is shown: of one with a fork, a branch of it. */
function current() {
  return state.branch.reduce((journey, way) => journey.fork?.[way] ?? journey, state.journey);
}

/** tell shows the answer of the current journey. */
function tell(at = 0) {
  const journey = current();
  state.steps = stepsOf(journey);
  const { end } = journey;
  $("answer").textContent = headline(end);
  $("answer").className = `answer ${how(end)}`;
  $("because").textContent = sentence(end.text);
  $("because").dataset.text = end.text;
  $("answer").dataset.kind = end.kind;
  $("seen").textContent = end.sees ? `${end.kind === "app" ? "The app" : "The other end"} sees it come from ${end.sees}.` : "";
  $("seen").dataset.sees = end.sees ?? "";
  forks(journey);
  legs(journey);
  $("command").textContent = flags();
  $("diagram-text").textContent = journey.legs.map((leg, i) => `${i + 1}. ${leg.title}. ${leg.outcome}`).join(" ");
  show(Math.min(at, state.steps.length - 1));
}

/** how returns the kind of an end, as colours and marks know it. */
function how({ kind, proxied }) {
  if (kind === "blocked" || kind === "loop" || kind === "lost") return "lost";
  if (kind === "unknown") return "unknown";
  return proxied ? "proxied" : "direct";
}

function headline({ kind, proxied }) {
  switch (kind) {
  case "app": return proxied ? "Through the proxy to the app" : "To the app, past the proxy";
  case "outside": return proxied ? "Through the proxy, then out of the pod" : "Out of the pod, past the proxy";
  case "proxy": return "To the proxy, and no further";
  case "blocked": return "It does not get there";
  case "loop": return "It goes round in a loop";
  case "lost": return "The answer does not come back";
  }
  return "It is not known where it goes";
}

function sentence(text) {
  return text ? `${text[0].toUpperCase()}${text.slice(1)}${text.endsWith(".") ? "" : "."}` : "";
}

/** flags returns the question as flags of the command line. */
function flags() {
  const question = asked();
  const quoted = (word) => (/^[\w.:,/@=-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);
  const words = ["--from", quoted(question.from), "--to", quoted(question.to)];
  if (question.udp) words.push("--udp");
  for (const name of ["uid", "gid", "mark"]) if (question[name]) words.push(`--${name}`, quoted(question[name]));
  return words.join(" ");
}

/** forks offers both ways where it is not known which one is taken. */
function forks(journey) {
  const box = $("forks");
  const { fork } = journey;
  box.hidden = !fork && !state.branch.length;
  if (box.hidden) return;
  const choices = [];
  if (state.branch.length) choices.push(["Back to the rule that is not known", state.branch.slice(0, -1)]);
  if (fork) choices.push(["If it matches", [...state.branch, "if"]], ["If it does not", [...state.branch, "unless"]]);
  box.replaceChildren(...choices.map(([label, branch]) => {
    const button = make("button", { type: "button" }, label);
    button.addEventListener("click", () => {
      halt();
      state.branch = branch;
      tell(0);
    });
    return button;
  }));
}

/** legs writes the story. */
function legs(journey) {
  let number = 0;
  $("legs").replaceChildren(...journey.legs.map((leg, i) => {
    const steps = state.steps.filter((step) => step.leg === i);
    const { packet } = leg;
    const whose = [packet.uid !== undefined && `uid ${packet.uid}`, packet.mark && `mark 0x${packet.mark.toString(16)}`].filter(Boolean).join(", ");
    return make("section", { class: `leg${steps[0].colour === "two" ? " second" : ""}${leg.answer ? " back" : ""}`, "data-leg": i, "data-from": leg.from },
      make("h3", {}, make("b", { "aria-hidden": "true" }, String(i + 1)), leg.title),
      make("p", { class: "packet" }, `${packetText(packet)} ${packet.protocol}${whose ? ` (${whose})` : ""}`),
      make("ol", { class: "steps" }, ...steps.map((step) => stepItem(step, number++))));
  }));
}

const packetText = (packet) => `${endpoint(packet.src, packet.srcPort)} → ${endpoint(packet.dst, packet.dstPort)}`;

const actors = { app: "the app", proxy: "the proxy", outside: "outside" };

function stepItem(step, number) {
  const quiet = !step.met.length && !step.start && !step.end && !step.stop;
  const item = make("li", {
    class: [quiet && "quiet", step.stop && `stop ${step.stop}`].filter(Boolean).join(" "), "data-step": number, "data-place": step.place, "data-end": step.end,
  });
  const place = make("span", { class: "place" }, step.start ? `From ${actors[step.place]}` : step.end ? `At ${actors[step.place]}` : step.place);
  const says = step.start ? "" : step.says || (step.met.length ? "" : step.skipped?.length ? "" : "no rule");
  if (says && !step.end) place.append(make("span", { class: "says" }, says));
  const button = make("button", { type: "button" }, place);
  if (step.end) button.append(make("span", { class: "why" }, step.says));
  for (const met of step.met) {
    const place = `${met.table} ${met.chain}${met.number ? ` ${met.number}` : ""}`;
    const why = reason(met);
    button.append(make("span", { class: `why${met.decides ? " decides" : ""}`, "data-rule": `${met.table} ${met.chain} ${met.number}` }, sentence(why)),
      make("span", { class: "rule" }, why || !met.number ? `${place} → ${met.does}` : `${place}: ${met.rule}`));
    const count = counted(side().tables[met.table]?.chains[met.chain]?.rules[met.number - 1] ?? {});
    if (count) button.append(make("span", { class: "counted" }, `${count} so far`));
  }
  for (const { field, before, after } of step.changes) {
    button.append(make("span", { class: "change" }, `${field} ${before} → ${after}`));
  }
  for (const skip of step.skipped ?? []) button.append(make("span", { class: "skips" }, `${skip}.`));
  if (step.outcome) button.append(make("span", { class: "why" }, step.outcome));
  button.addEventListener("click", () => {
    halt();
    show(number);
  });
  item.append(button);
  return item;
}

/** reason says why a rule is there; "" where it has no comment, and is its own reason. */
function reason(met) {
  return met.number && met.reason.endsWith(met.rule) ? "" : met.reason;
}

/** show shows one step. With animate the packet runs there first, and then is called. */
function show(at, animate, then) {
  state.stopRun?.();
  state.stopRun = null;
  state.at = at;
  const step = state.steps[at];
  for (const item of $("legs").querySelectorAll("[data-step]")) {
    const here = Number(item.dataset.step) === at;
    if (here) {
      item.setAttribute("aria-current", "step");
      reveal(item);
    } else {
      item.removeAttribute("aria-current");
    }
  }
  $("count").textContent = `Step ${at + 1} of ${state.steps.length}`;
  $("progress").style.transform = `scaleX(${(at + 1) / state.steps.length})`;
  $("back").disabled = at === 0;
  $("next").disabled = at === state.steps.length - 1;
  const said = saying(step);
  $("live").textContent = `Step ${at + 1} of ${state.steps.length}: ${said.join(". ")}`;
  $("now").replaceChildren(make("b", {}, said[0]), said.length > 1 ? ` ${said.slice(1).join(" ")}` : "");
  light();
  const way = state.diagram.show(state.steps, at);
  if (animate) follows(state.diagram.nodes[step.node].group);
  if (animate && way && !calm.matches) state.stopRun = state.diagram.run(way, step.colour, 650, then);
  else then?.();
  remember();
}

/** reveal scrolls the list of steps, not the page, to a step. */
function reveal(item) {
  const list = $("legs");
  if (list.scrollHeight <= list.clientHeight + 1) return;
  const { top, bottom } = list.getBoundingClientRect();
  const room = Math.max(160, Math.min(bottom, innerHeight) - Math.max(top, 0)); // of it that is to be seen
  const first = item.offsetTop - 60, last = item.offsetTop + item.offsetHeight + 24;
  if (first < list.scrollTop) list.scrollTop = first;
  else if (last > list.scrollTop + room) list.scrollTop = last - room;
}

/** follows scrolls a small screen to where the packet is, above the bar with the buttons. */
function follows(node) {
  if (innerWidth > 720) return;
  const { top, bottom } = node.getBoundingClientRect();
  const room = innerHeight - document.querySelector(".player").offsetHeight - 16;
  const by = top < 16 ? top - 16 : bottom > room ? Math.min(bottom - room, top - 16) : 0;
  if (by) scrollBy({ top: by, behavior: calm.matches ? "auto" : "smooth" });
}

/** saying returns what is said of a step: where, and why. */
function saying(step) {
  const leg = current().legs[step.leg];
  if (step.start) return [`${leg.title}.`, packetText(leg.packet)];
  if (step.end) return [`At ${actors[step.place]}.`, step.says];
  const reasons = step.met.map((met) => sentence(reason(met)) || `${met.table} ${met.chain} ${met.number}: ${met.rule}.`);
  if (step.outcome) reasons.push(step.outcome);
  if (!reasons.length) reasons.push(step.says || "No rule matches.");
  return [`${step.place}:`, ...reasons];
}

/* ---- the player ---- */

const playIcon = "M4 2l10 6-10 6z", pauseIcon = "M3 2h4v12H3zM9 2h4v12H9z";

function playing(on) {
  state.playing = on;
  $("play").setAttribute("aria-label", on ? "Pause" : "Play");
  $("play").querySelector("path").setAttribute("d", on ? pauseIcon : playIcon);
}

function halt() {
  playing(false);
  clearTimeout(state.timer);
  const stop = state.stopRun;
  state.stopRun = null;
  stop?.();
}

function play() {
  playing(true);
  const forward = () => {
    if (!state.playing) return;
    if (state.at >= state.steps.length - 1) {
      playing(false);
      return;
    }
    show(state.at + 1, true, () => {
      if (!state.playing) return;
      const step = state.steps[state.at];
      state.timer = setTimeout(forward, 700 + 750 * step.met.length + (step.end ? 900 : 0));
    });
  };
  if (state.at >= state.steps.length - 1) show(0);
  state.timer = setTimeout(forward, 300);
}

function go(by) {
  halt();
  const at = state.at + by;
  if (at < 0 || at >= state.steps.length) return;
  show(at, by > 0, () => {});
}

/* ---- the rules ---- */

/** rules lists the rules of the side. */
function rules() {
  const shape = side();
  const total = Object.values(shape.tables).flatMap(({ chains }) => Object.values(chains)).reduce((sum, { rules: all }) => sum + all.length, 0);
  $("rules-text").textContent = `${total} rules of IPv${shape.family}. Those that this connection met up to the current step are marked.`;
  const parts = shape.order.map((table) => make("section", {}, make("h3", {}, table), ...shape.tables[table].order.map((chain) => chainList(shape, table, chain))));
  if (shape.routing.length) parts.push(make("section", {}, make("h3", {}, "routing"), make("ul", { class: "routing" }, ...shape.routing.map((line) => make("li", {}, line)))));
  $("rules").replaceChildren(...parts);
}

/** counted says how many packets a rule has counted, where that is known. */
function counted({ packets }) {
  if (packets === undefined) return "";
  return packets === 1 ? "1 packet" : `${packets.toLocaleString("en")} packets`;
}

function chainList(shape, table, chain) {
  const { rules: all, policy } = shape.tables[table].chains[chain];
  const note = `${all.length === 1 ? "1 rule" : `${all.length} rules`}${policy ? `, policy ${policy}` : ""}`;
  const list = make("ol", {});
  const details = make("details", { open: all.length <= 60 && innerWidth > 720, "data-list": `${table}|${chain}` }, make("summary", {}, chain, make("span", {}, note)), list);
  const write = () => {
    if (list.childElementCount) return;
    list.append(...all.map((rule, i) => make("li", { "data-number": i + 1 },
      make("span", { class: "number" }, String(i + 1)),
      make("span", {}, rule.why ? rule.why.replace(/^shunt: /, "") : "", make("code", {}, rule.text)),
      make("span", { class: "count" }, counted(rule)))));
    light();
  };
  if (details.open) write();
  else details.addEventListener("toggle", write, { once: true });
  return details;
}

/** light marks the rules that were met up to the current step. */
function light() {
  const met = new Set(state.steps.slice(0, state.at + 1).flatMap((step) => step.met.map((one) => `${one.table}|${one.chain}|${one.number}`)));
  for (const list of $("rules").querySelectorAll("[data-list]")) {
    for (const item of list.querySelectorAll("[data-number]")) {
      item.classList.toggle("met", met.has(`${list.dataset.list}|${item.dataset.number}`));
    }
  }
}

/* ---- the page ---- */

/** settle draws what belongs to the pod, its mode and the family: the switches, the paths, the diagram, the rules. */
function settle() {
  const subject = state.subjects[state.subject];
  if (!side()) state.family = view().shapes[0].family;
  const shape = side();
  $("source").textContent = shape.invented ? `${view().name}. The addresses are examples.` : view().name;
  $("subject").value = String(state.subject);
  $("modes").hidden = subject.modes.length < 2;
  $("modes").querySelector(".segments").replaceChildren(...subject.modes.map(({ name }, i) => make("label", {},
    make("input", { type: "radio", name: "mode", value: i, checked: i === state.mode }), make("span", {}, name))));
  for (const radio of document.getElementsByName("family")) {
    radio.checked = Number(radio.value) === state.family;
    radio.disabled = !view().shapes.some(({ family }) => family === Number(radio.value));
  }
  const unread = shape.unread ?? [];
  $("unread").hidden = !unread.length;
  $("unread").querySelector("ul").replaceChildren(...unread.map((line) => make("li", {}, line)));
  const usual = paths().filter(({ name }) => name !== "exception");
  for (const old of $("paths").querySelectorAll("li:not(#exceptions)")) old.remove();
  $("paths").prepend(...usual.map((path, i) => {
    const kind = how(path);
    const said = { lost: "does not get there", unknown: "not known", proxied: "through the proxy", direct: "past the proxy" }[kind];
    const button = make("button", { type: "button", "data-path": i, "aria-pressed": "false" },
      make("i", { class: kind, "aria-hidden": "true" }), path.about, make("span", { class: "unseen" }, `: ${said}`));
    button.addEventListener("click", () => {
      fill(path.question);
      changed();
    });
    return make("li", {}, button);
  }));
  const exceptions = paths().slice(usual.length);
  const untried = view().paths.filter((path) => path.family === state.family && !path.question.to);
  $("exceptions").hidden = !exceptions.length;
  $("exception").replaceChildren(make("option", { value: "none" }, "exceptions of these rules"), ...exceptions.map((path, i) => (
    make("option", { value: usual.length + i }, `${path.about}: ${shorten(path.like)}`))),
  ...untried.map(({ about }) => make("option", { disabled: true }, `not tried: ${about}`)));
  draw();
  rules();
}

/** shorten names some of a list, and says how many more there are. */
function shorten(list, most = 6) {
  return list.length > most ? `${list.slice(0, most).join(", ")} and ${list.length - most} more` : list.join(", ");
}

function draw() {
  const root = $("diagram");
  state.diagram = new Diagram(root, side(), view().proxy, root.parentElement.clientWidth - (innerWidth <= 720 ? 16 : 28));
}

/** changed reads the form after a change. */
function changed() {
  arrange();
  ask(0);
}

/** switchTo asks the same question of another pod, mode or family. */
function switchTo(change) {
  const question = asked();
  const family = state.family;
  change();
  settle();
  if (state.family !== family) fill(counterpart(question, state.family));
  changed();
}

function listen() {
  $("question").addEventListener("submit", (event) => {
    event.preventDefault();
    changed();
  });
  $("question").addEventListener("change", changed);
  $("more").addEventListener("click", () => expand($("extra").hidden));
  $("change").addEventListener("click", () => $("change").setAttribute("aria-expanded", String($("change").getAttribute("aria-expanded") === "false")));
  $("exception").addEventListener("change", () => {
    if ($("exception").value === "none") return;
    fill(paths()[Number($("exception").value)].question);
    changed();
  });
  $("subject").addEventListener("change", () => switchTo(() => {
    state.subject = Number($("subject").value);
    state.mode = Math.max(0, state.subjects[state.subject].modes.findIndex(({ current: now }) => now));
  }));
  $("modes").addEventListener("change", (event) => switchTo(() => { state.mode = Number(event.target.value); }));
  $("families").addEventListener("change", (event) => switchTo(() => { state.family = Number(event.target.value); }));
  $("play").addEventListener("click", () => (state.playing ? halt() : play()));
  $("back").addEventListener("click", () => go(-1));
  $("next").addEventListener("click", () => go(1));
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    if (event.key === "ArrowRight") go(1);
    else if (event.key === "ArrowLeft") go(-1);
    else return;
    event.preventDefault();
  });
  $("link").addEventListener("click", () => copy($("link"), `${location.href.replace(/#.*/, "")}${linkOf()}`));
  $("copy").addEventListener("click", () => copy($("copy"), $("command").textContent));
  addEventListener("hashchange", () => follow(location.hash));
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    halt();
    draw();
    state.diagram.show(state.steps, state.at);
  });
}

async function copy(button, text) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Copying is not allowed here";
  }
  setTimeout(() => { button.textContent = label; }, 1500);
}

start().then(() => {
  $("subjects").hidden = state.subjects.length < 2;
  $("subject").replaceChildren(...state.subjects.map(({ name }, i) => make("option", { value: i }, name)));
  listen();
  if (!follow(location.hash)) {
    if (state.asked) state.family = familyOf(state.asked.to);
    else if (!paths().length) state.family = view().paths[0].family;
    settle();
    fill(state.asked ?? paths()[0].question);
    changed();
  }
  $("main").setAttribute("aria-busy", "false");
}).catch((problem) => {
  $("answer").textContent = `This page could not start: ${problem.message}`;
  $("answer").className = "answer lost";
});
