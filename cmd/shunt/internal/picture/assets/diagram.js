"use strict";

// The diagram: netfilter's hooks as two lanes, in on the left and out on the right, between the outside and the pod's processes.
// Chains are drawn from the rules of the source, a mark for each rule. A leg of a journey is a line through it, as on a map of
// an underground.

const SVG = "http://www.w3.org/2000/svg";

/** svg makes an SVG element with attributes and children. */
function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== "") made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// The colours of the two connections, of an end that is none, and of one that is not known.
const colours = ["one", "two", "bad", "doubt"];

class Diagram {
  /** @param root the svg element @param side one family of a pod @param proxy the pod's proxy @param width in pixels */
  constructor(root, side, proxy, width) {
    this.root = root;
    this.side = side;
    this.width = Math.max(300, Math.round(width));
    this.narrow = this.width < 600;
    this.nodes = {};
    this.marks = new Map(); // of rules, by table, chain and number
    this.lanes = new Map(); // drawn where no leg goes
    this.bars = new Map(); // of long chains, by table and chain
    this.layers = { lanes: svg("g"), ways: svg("g"), boxes: svg("g"), top: svg("g") };
    this.measure();
    this.place(proxy);
    this.drawLanes();
    root.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    root.replaceChildren(
      ...root.querySelectorAll("title, desc"), this.layers.lanes, this.layers.ways, this.layers.boxes, this.layers.top,
    );
  }

  measure() {
    const edge = this.narrow ? 10 : 22;
    this.left = edge;
    this.gap = this.narrow ? 24 : Math.min(130, this.width * 0.14);
    this.column = (this.width - 2 * edge - this.gap) / 2;
    this.right = edge + this.column + this.gap;
    this.laneIn = this.left + this.column / 2;
    this.laneOut = this.right + this.column / 2;
  }

  /** place lays the boxes out: two columns, and the processes below them. */
  place(proxy) {
    const between = this.narrow ? 28 : 30;
    const { left, right, column } = this;
    this.box("outside", left, 4, this.width - 2 * left, 38, "Outside", `behind ${this.side.host.uplink || "the pod's link"}`, "actor");
    this.frameTop = 42 + 20;
    const top = this.frameTop + 28;
    const bare = this.side.routing.length ? "route" : "route bare";
    const routeWidth = this.narrow ? 72 : 108;
    const routeHeight = 32;

    const post = this.hookBox("POSTROUTING", right, top, column);
    const outputY = top + post + between;
    const routeOutY = outputY + this.hookBox("OUTPUT", right, outputY, column) + between - 4;
    this.box("routeOut", this.laneOut - routeWidth / 2, routeOutY, routeWidth, routeHeight, "routing", "", bare);

    const pre = this.hookBox("PREROUTING", left, top, column);
    const input = this.hookHeight("INPUT", column);
    const least = top + pre + between + routeHeight + between;
    const inputY = Math.max(least, routeOutY + routeHeight - input);
    this.hookBox("INPUT", left, inputY, column);
    const routeInY = (top + pre + inputY) / 2 - routeHeight / 2;
    this.box("routeIn", this.laneIn - routeWidth / 2, routeInY, routeWidth, routeHeight, "routing", "", bare);
    const forward = this.narrow ? 60 : 92;
    const forwardX = left + column + this.gap / 2 - (this.narrow ? forward - 9 : forward / 2);
    this.hookBox("FORWARD", forwardX, routeInY - 1, forward);
    if (this.narrow) this.nodes.FORWARD.group.classList.add("small");

    const lowest = Math.max(routeOutY + routeHeight, inputY + input);
    this.busOut = lowest + 24;
    this.busIn = this.busOut + 18;
    const y = this.busIn + 26;
    const ports = [proxy.inbound && `in :${proxy.inbound}`, proxy.outbound && `out :${proxy.outbound}`, proxy.dns && `DNS :${proxy.dns}`].filter(Boolean);
    this.box("proxy", left, y, column, 54, "proxy", ports.slice(0, this.narrow ? 2 : 3).join(this.narrow ? " " : " · "), "actor");
    this.box("app", right, y, column, 54, "app", "", "actor");
    this.frameBottom = y + 54 + 14;
    this.height = this.frameBottom + 3;
  }

  /** box draws a box with a name, and notes it as a node. */
  box(id, x, y, w, h, name, detail, kind) {
    const group = svg("g", { class: `node ${kind}`, "data-node": id });
    const radius = kind.startsWith("route") ? h / 2 : 10;
    group.append(svg("rect", { class: "box", x, y, width: w, height: h, rx: radius }));
    const middle = x + w / 2;
    const line = y + (detail && h > 44 ? 23 : h / 2 + 4.5);
    if (!name) {
      // a hook's box, whose name stands at the left
    } else if (detail && h <= 44) {
      const text = svg("text", { x: middle, y: line, "text-anchor": "middle" });
      text.append(svg("tspan", { class: "name" }, name), svg("tspan", { class: "detail", dx: 8 }, detail));
      group.append(text);
    } else {
      group.append(svg("text", { class: "name", x: middle, y: line, "text-anchor": "middle" }, name));
      if (detail) group.append(svg("text", { class: "detail", x: middle, y: y + 41, "text-anchor": "middle" }, detail));
    }
    this.layers.boxes.append(group);
    this.nodes[id] = { x, y, w, h, group };
  }

  /** chainsOf returns the chains that a hook's base chains lead to, each once, in the order in which rules name them. */
  chainsOf(base) {
    const table = this.side.tables[base.table];
    const found = [];
    const visit = (name, depth) => {
      if (found.some((chain) => chain.name === name) || !table?.chains[name]) return;
      const chain = table.chains[name];
      found.push({ name, depth, chain });
      for (const rule of chain.rules) if (rule.to) visit(rule.to, depth + 1);
    };
    visit(base.chain, 0);
    return found;
  }

  /** rows returns what a hook's box shows: a row for each chain, with the marks of its rules. */
  rows(hook, width) {
    const inner = width - 20;
    const rows = [];
    const indent = this.narrow ? 0 : 12;
    const used = (this.side.hooks[hook] ?? []).map((base) => ({ base, chains: this.chainsOf(base) }))
      .filter(({ chains }) => chains.some(({ chain }) => chain.rules.length || chain.policy === "DROP"));
    const names = used.flatMap(({ base, chains }) => chains.map(({ name, depth }) => (depth ? indent + name.length * 6.65 : base.table.length * 7)));
    const nameWidth = this.narrow ? 0 : Math.min(Math.max(...names) + 14, inner * 0.62);
    for (const { base, chains } of used) {
      chains.forEach(({ name, depth, chain }) => {
        const label = depth ? name : base.table;
        const long = chain.rules.length > 36;
        let at = nameWidth, below = false;
        if (this.narrow) {
          at = label.length * (depth ? 6.65 : 7) + 9;
          below = long || at + chain.rules.length * 12 > inner;
          if (below) at = 0;
        }
        const room = Math.max(4, Math.floor((inner - at) / 12));
        const lines = long ? 1 : Math.max(1, Math.ceil(chain.rules.length / room));
        rows.push({
          table: base.table, chain: name, label, head: !depth, rules: chain.rules, policy: chain.policy,
          indent: depth ? indent : 0, at, below, room, height: (below ? 15 : 3) + lines * 13 + 2,
        });
      });
    }
    return rows;
  }

  hookHeight(hook, width) {
    const rows = this.rows(hook, width);
    return rows.length ? 33 + rows.reduce((sum, row) => sum + row.height + (row.head ? 5 : 0), 0) + 3 : 34;
  }

  /** hookBox draws a hook with its chains and returns its height. */
  hookBox(hook, x, y, width) {
    const rows = this.rows(hook, width);
    const height = this.hookHeight(hook, width);
    this.box(hook, x, y, width, rows.length ? height : 34, rows.length ? "" : hook, "", rows.length ? "hook" : "hook bare");
    const { group } = this.nodes[hook];
    group.append(svg("title", {}, rows.length ? hook : `${hook}: no rules`));
    if (!rows.length) return 34;
    group.append(svg("text", { class: "name", x: x + 10, y: y + 20 }, hook));
    let top = y + 30;
    rows.forEach((row, i) => {
      if (row.head) {
        if (i > 0) group.append(svg("line", { class: "divider", x1: x + 10, x2: x + width - 10, y1: top + 2, y2: top + 2 }));
        top += 5;
      }
      this.chainRow(group, row, x + 10, top, width - 20);
      top += row.height;
    });
    return height;
  }

  /** chainRow draws a chain: its name, and a mark for each rule. A long chain is one bar. */
  chainRow(group, row, x, y, width) {
    const fits = Math.floor((row.below ? width : row.at - row.indent - 4) / 6.65);
    const label = row.label.length > fits ? row.label.slice(0, fits - 1) + "…" : row.label;
    const name = svg("text", { class: row.head ? "table" : "chain", x: x + row.indent, y: y + 11, "data-chain": `${row.table} ${row.chain}` }, label);
    if (label !== row.label) name.append(svg("title", {}, row.label));
    group.append(name);
    const marksX = x + row.at;
    const marksY = row.below ? y + 16 : y + 2;
    const key = `${row.table}|${row.chain}`;
    if (row.rules.length > 36) {
      const length = width - row.at - 4;
      group.append(svg("rect", { class: "bar", x: marksX, y: marksY, width: length, height: 9, rx: 4.5 }, svg("title", {}, `${row.rules.length} rules`)));
      this.bars.set(key, { group, x: marksX, y: marksY, length, of: row.rules.length });
      return;
    }
    row.rules.forEach((rule, i) => {
      const mark = svg("rect", {
        class: "dot", x: marksX + (i % row.room) * 12 + 0.5, y: marksY + Math.floor(i / row.room) * 13 + 0.5, width: 8, height: 8, rx: rule.to ? 4 : 2,
      }, svg("title", {}, `${i + 1}. ${rule.why || rule.text}`));
      group.append(mark);
      this.marks.set(`${key}|${i + 1}`, mark);
    });
  }

  /** between returns the points of the line from one node to another. */
  between(from, to) {
    const n = this.nodes;
    const { laneIn, laneOut } = this;
    const bottom = (node) => node.y + node.h;
    const level = n.POSTROUTING.y + 17;
    const inset = this.narrow ? 26 : 60;
    const proxyOut = n.proxy.x + n.proxy.w - inset;
    const appIn = n.app.x + inset;
    switch (`${from}>${to}`) {
    case "outside>PREROUTING": return [[laneIn, bottom(n.outside) - 8], [laneIn, n.PREROUTING.y + 8]];
    case "POSTROUTING>outside": return [[laneOut, n.POSTROUTING.y + 8], [laneOut, bottom(n.outside) - 8]];
    case "PREROUTING>routeIn": return [[laneIn, bottom(n.PREROUTING) - 8], [laneIn, n.routeIn.y + 8]];
    case "PREROUTING>INPUT": return [[laneIn, bottom(n.PREROUTING) - 8], [laneIn, n.INPUT.y + 8]];
    case "routeIn>INPUT": return [[laneIn, bottom(n.routeIn) - 8], [laneIn, n.INPUT.y + 8]];
    case "routeIn>FORWARD": return [[n.routeIn.x + n.routeIn.w - 8, n.routeIn.y + 16], [n.FORWARD.x + 8, n.routeIn.y + 16]];
    case "FORWARD>POSTROUTING": {
      const x = n.POSTROUTING.x + (this.narrow ? 30 : 44);
      const up = this.left + this.column + this.gap / 2;
      const over = bottom(n.POSTROUTING) + 15;
      return [[up, n.FORWARD.y + 8], [up, over], [x, over], [x, bottom(n.POSTROUTING) - 8]];
    }
    case "INPUT>proxy": return [[laneIn, bottom(n.INPUT) - 8], [laneIn, n.proxy.y + 8]];
    case "INPUT>app": return [[laneIn, bottom(n.INPUT) - 8], [laneIn, this.busIn], [appIn, this.busIn], [appIn, n.app.y + 8]];
    case "proxy>routeOut": return [[proxyOut, n.proxy.y + 8], [proxyOut, this.busOut], [laneOut, this.busOut], [laneOut, bottom(n.routeOut) - 8]];
    case "app>routeOut": return [[laneOut, n.app.y + 8], [laneOut, bottom(n.routeOut) - 8]];
    case "routeOut>OUTPUT": return [[laneOut, n.routeOut.y + 8], [laneOut, bottom(n.OUTPUT) - 8]];
    case "OUTPUT>POSTROUTING": return [[laneOut, n.OUTPUT.y + 8], [laneOut, bottom(n.POSTROUTING) - 8]];
    case "POSTROUTING>PREROUTING": return [[n.POSTROUTING.x + 8, level], [n.PREROUTING.x + n.PREROUTING.w - 8, level]];
    }
    return [];
  }

  /** drawLanes draws where packets can go at all, and the frame of the pod. */
  drawLanes() {
    const lanes = [
      ["outside", "PREROUTING"], ["PREROUTING", "routeIn"], ["routeIn", "INPUT"], ["routeIn", "FORWARD"], ["FORWARD", "POSTROUTING"],
      ["INPUT", "proxy"], ["INPUT", "app"], ["proxy", "routeOut"], ["app", "routeOut"], ["routeOut", "OUTPUT"], ["OUTPUT", "POSTROUTING"],
      ["POSTROUTING", "outside"], ["POSTROUTING", "PREROUTING"],
    ];
    const g = this.layers.lanes;
    g.append(svg("rect", {
      class: "frame", x: 1, y: this.frameTop, width: this.width - 2, height: this.frameBottom - this.frameTop, rx: 14,
    }));
    g.append(svg("text", { class: "label", x: this.narrow ? 10 : 16, y: this.frameTop + 18 }, "pod"));
    for (const [from, to] of lanes) {
      const points = this.between(from, to);
      const lane = svg("g", {}, svg("path", { class: "base", d: outline(points, 0) }), arrowHead(points, 0, "arrow"));
      this.lanes.set(`${from}>${to}`, lane);
      g.append(lane);
    }
    const { x } = this.nodes.POSTROUTING;
    g.append(svg("text", { class: "label", x: x - this.gap / 2, y: this.nodes.POSTROUTING.y - 3, "text-anchor": "middle" }, "lo"));
  }

  /**
   * show draws a journey up to a step: the ways of its legs, each on its own track, and the marks of the rules that were met.
   * @returns the path element that leads to the step, or null
   */
  show(steps, at) {
    const legs = steps.length ? steps[steps.length - 1].leg + 1 : 0;
    this.layers.ways.replaceChildren();
    this.layers.top.replaceChildren();
    for (const { group } of Object.values(this.nodes)) group.classList.remove("visited", "present", ...colours);
    for (const mark of this.marks.values()) mark.classList.remove("met", "latest", "decides", ...colours);
    for (const name of this.root.querySelectorAll(".lit-chain")) name.classList.remove("lit-chain");

    for (const lane of this.lanes.values()) lane.classList.remove("used");

    let last = null;
    steps.forEach((step, i) => {
      const node = this.nodes[step.node];
      const colour = step.stop || step.colour;
      const points = this.between(step.from, step.node);
      if (points.length) {
        const place = i > at ? "ahead" : step.leg === steps[at].leg ? "here" : "";
        const track = (step.leg - (legs - 1) / 2) * (this.narrow ? 5 : 6);
        const way = svg("path", { class: `way ${step.colour} ${place} ${step.answer ? "back" : ""}`, d: outline(points, track) });
        this.layers.ways.append(way, arrowHead(points, track, `head ${step.colour} ${place}`));
        this.lanes.get(`${step.from}>${step.node}`)?.classList.add("used");
        if (i === at) last = way;
      }
      if (i > at) return;
      node.group.classList.remove(...colours);
      node.group.classList.add("visited", colour);
      for (const met of step.met) this.mark(met, step, i === at);
      if (i === at) {
        node.group.classList.add("present");
        if (step.stop) this.sign(node, step.stop);
      }
    });
    return last;
  }

  mark(met, step, now) {
    const key = `${met.table}|${met.chain}`;
    const bar = this.bars.get(key);
    let mark = this.marks.get(`${key}|${met.number}`);
    if (!mark && bar && met.number) {
      mark = svg("rect", { class: "dot", x: bar.x + (bar.length - 8) * (met.number - 1) / Math.max(1, bar.of - 1), y: bar.y + 0.5, width: 8, height: 8, rx: 2 });
      this.layers.top.append(mark);
    }
    if (!mark) return;
    mark.classList.remove(...colours);
    mark.classList.add("met", step.stop || step.colour);
    mark.classList.toggle("latest", now);
    mark.classList.toggle("decides", Boolean(met.decides));
    for (const name of this.root.querySelectorAll("[data-chain]")) {
      if (name.dataset.chain === `${met.table} ${met.chain}` && this.nodes[step.node].group.contains(name)) name.classList.add("lit-chain");
    }
  }

  /** sign puts a cross where a packet ends, and a question mark where that is not known. */
  sign(node, kind) {
    const x = node.x + node.w - 15, y = node.y + 15;
    this.layers.top.append(kind === "bad" ? svg("path", { class: "cross", d: `M${x - 6} ${y - 6}l12 12m0 -12l-12 12` })
      : svg("text", { class: "question", x, y: y + 7, "text-anchor": "middle" }, "?"));
  }

  /** run moves a dot along a way; done is called at its end. It returns a function that ends it at once. */
  run(way, colour, milliseconds, done) {
    const length = way.getTotalLength();
    const runner = svg("circle", { class: `runner ${colour}`, r: 7 });
    this.layers.top.append(runner);
    let frame = 0, start;
    const finish = () => {
      cancelAnimationFrame(frame);
      runner.remove();
      done();
    };
    const move = (time) => {
      start ??= time;
      const part = Math.min(1, (time - start) / milliseconds);
      const point = way.getPointAtLength(length * (part < 0.5 ? 2 * part * part : 1 - 2 * (1 - part) ** 2));
      runner.setAttribute("cx", point.x);
      runner.setAttribute("cy", point.y);
      if (part < 1) frame = requestAnimationFrame(move);
      else finish();
    };
    frame = requestAnimationFrame(move);
    return finish;
  }
}

/** outline returns a path through points with round corners, moved off by some pixels, so that tracks lie side by side. */
function outline(points, off) {
  const radius = 9;
  const p = points.map(([x, y]) => [x + off, y + off]);
  let d = "";
  p.forEach(([x, y], i) => {
    if (i === 0 || i === p.length - 1) {
      d += `${i ? "L" : "M"}${x} ${y}`;
      return;
    }
    const [before, after] = [p[i - 1], p[i + 1]];
    const toward = ([bx, by]) => {
      const distance = Math.hypot(bx - x, by - y) || 1;
      const r = Math.min(radius, distance / 2);
      return [x + (bx - x) / distance * r, y + (by - y) / distance * r];
    };
    const [ax, ay] = toward(before);
    const [cx, cy] = toward(after);
    d += `L${ax} ${ay}Q${x} ${y} ${cx} ${cy}`;
  });
  return d;
}

/** arrowHead points the way in the middle of a line's longest part. */
function arrowHead(points, off, kind) {
  let longest = [points[0], points[1]];
  const size = ([[ax, ay], [bx, by]]) => Math.hypot(bx - ax, by - ay);
  for (let i = 1; i + 1 < points.length; i++) {
    const part = [points[i], points[i + 1]];
    if (size(part) > size(longest)) longest = part;
  }
  const [[ax, ay], [bx, by]] = longest;
  const [x, y] = [(ax + bx) / 2 + off, (ay + by) / 2 + off];
  const turn = Math.atan2(by - ay, bx - ax) * 180 / Math.PI;
  return svg("path", { class: kind, d: "M-4 -5L5 0L-4 5z", transform: `translate(${x} ${y}) rotate(${turn})` });
}
