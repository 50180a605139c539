// Goes through the orders of a timeline: buttons, keys, clicks on operations, and #anomaly=1&path=2&step=3 in the address.
// Everything is drawn from the data in the figure; the page asks nobody for anything.
"use strict";
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const make = (parent, name, attributes, text) => {
    const element = parent.appendChild(parent.namespaceURI === SVG
      ? document.createElementNS(SVG, name) : document.createElement(name));
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    if (text !== undefined) element.textContent = text;
    return element;
  };

  class Timeline {
    constructor(figure) {
      this.figure = figure;
      this.data = JSON.parse(figure.querySelector("script").textContent);
      this.label = new Map(this.data.bars.map(([id, label]) => [id, label]));
      this.place = new Map(this.data.bars.map(([id, , x, y]) => [id, [x, y]]));
      this.why = new Map(this.data.impossible.map(([op, state, reason]) => [op + "/" + state, reason]));
      this.path = 0;
      this.step = this.data.paths[0].ops.length;
      this.chosen = null;
      figure.querySelector(".controls").hidden = false;
      figure.addEventListener("keydown", (event) => this.key(event));
      figure.addEventListener("click", (event) => this.click(event));
      this.draw();
    }

    get order() { return this.data.paths[this.path]; }

    show(path, step, chosen) {
      this.path = Math.max(0, Math.min(this.data.paths.length - 1, path));
      this.step = Math.max(0, Math.min(this.order.ops.length, step));
      this.chosen = chosen ?? null;
      this.draw();
    }

    act(what) {
      const all = this.order.ops.length;
      const to = {
        "path-": [this.path - 1, Infinity], "path+": [this.path + 1, Infinity],
        "step-": [this.path, this.step - 1], "step+": [this.path, this.step + 1],
        "first": [this.path, 0], "last": [this.path, all],
      }[what];
      if (to) this.show(...to);
      return Boolean(to);
    }

    key(event) {
      const op = event.target.closest("[data-op]");
      if (op && (event.key === "Enter" || event.key === " ")) {
        this.choose(Number(op.dataset.op));
      } else if (event.ctrlKey || event.altKey || event.metaKey || !this.act({
        ArrowLeft: "step-", ArrowRight: "step+", ArrowUp: "path-", ArrowDown: "path+", Home: "first", End: "last",
      }[event.key])) {
        return;
      }
      event.preventDefault();
      this.remember();
    }

    click(event) {
      const target = event.target.closest("[data-do],[data-op],[data-step],[data-next]");
      if (!target) return;
      const { do: what, op, step, next } = target.dataset;
      if (what) this.act(what);
      else if (op) this.choose(Number(op));
      else if (step) this.show(this.path, Number(step));
      else this.branch(Number(next));
      this.remember();
    }

    // The longest order that contains the operation: they are sorted.
    choose(op) {
      const path = this.data.paths.findIndex((path) => path.ops.includes(op));
      if (path >= 0) this.show(path, Infinity, op);
      else this.show(0, Infinity, op);
    }

    // The longest order that goes on with this operation from here.
    branch(op) {
      const start = this.order.ops.slice(0, this.step).concat(op).join();
      const path = this.data.paths.findIndex((path) => path.ops.slice(0, this.step + 1).join() === start);
      if (path >= 0) this.show(path, this.step + 1);
    }

    remember() {
      const anomaly = timelines.indexOf(this) + 1;
      try {
        history.replaceState(null, "", `#anomaly=${anomaly}&path=${this.path + 1}&step=${this.step}`);
      } catch { /* some browsers forbid it for files */ }
    }

    // What is left at this step: what could be next, and why the others could not.
    left() {
      const placed = new Set(this.order.ops.slice(0, this.step));
      const left = this.data.evidence.filter(([op]) => !placed.has(op));
      const returned = left.filter(([, , ret]) => ret !== null);
      const first = returned.reduce((a, b) => (a === null || b[2] < a[2] ? b : a), null);
      const state = this.order.states[this.step];
      return left.map(([op, call]) => {
        if (first && call > first[2]) return { op, wait: `${this.label.get(first[0])} had returned before` };
        const no = this.why.get(op + "/" + state);
        return no === undefined ? { op } : { op, no };
      });
    }

    draw() {
      const { figure, order, step, data } = this;
      const set = (name, text) => { figure.querySelector(".controls ." + name).textContent = text; };
      set("path", this.path + 1);
      set("step", step);
      set("steps", order.ops.length);
      const line = figure.querySelector(".line");
      const marks = figure.querySelector(".marks");
      line.replaceChildren();
      marks.replaceChildren();
      if (step > 1) make(line, "polyline", { points: order.at.slice(0, step).map((point) => point.join()).join(" ") });
      for (let i = 0; i < step; i++) {
        const [x, y] = order.at[i];
        const [, situation, state] = data.states[order.states[i + 1]];
        const mark = make(marks, "g", { class: i + 1 === step ? "mark last" : "mark" });
        make(mark, "title", {}, `step ${i + 1}: ${situation}`);
        make(mark, "circle", { cx: x, cy: y, r: 8 });
        make(mark, "text", { class: "number", x, y: y + 3.5 }, i + 1);
        make(mark, "text", { class: "state", x: x + 11, y: y + 4 }, state);
      }
      const left = this.left();
      for (const bar of figure.querySelectorAll("[data-op]")) {
        const op = Number(bar.dataset.op);
        const rest = left.find((rest) => rest.op === op);
        bar.classList.toggle("no", Boolean(rest && rest.no));
        bar.classList.toggle("can", Boolean(rest && !rest.no && !rest.wait));
        bar.classList.toggle("chosen", op === this.chosen);
      }
      for (const { op, no, wait } of left) {
        if (!no && !wait) continue;
        const [x, y] = this.place.get(op);
        const mark = make(marks, "g", { class: no ? "stuck" : "stuck wait" });
        make(mark, "title", {}, no || `${wait} it was called`);
        make(mark, "text", { x: x + 7, y: y + 37 }, no ? "✗" : "…");
      }
      this.tell(left);
      this.reveal();
    }

    // Scrolls sideways to where the order has come, or to what was clicked.
    reveal() {
      const scroll = this.figure.querySelector(".scroll");
      const at = this.chosen !== null ? this.place.get(this.chosen)[0] : this.step ? this.order.at[this.step - 1][0] : 0;
      const margin = Math.min(120, scroll.clientWidth / 4);
      if (at < scroll.scrollLeft + margin || at > scroll.scrollLeft + scroll.clientWidth - margin) {
        scroll.scrollLeft = at - scroll.clientWidth / 2;
      }
    }

    tell(left) {
      const { order, step, data } = this;
      const told = this.figure.querySelector(".told");
      told.replaceChildren();
      if (this.chosen !== null && !data.paths.some((path) => path.ops.includes(this.chosen))) {
        const known = data.evidence.some(([op]) => op === this.chosen);
        make(told, "p", {}, `${this.label.get(this.chosen)} ` + (known ? "is in none of these orders." : "is not part of the evidence."));
      }
      const list = make(told, "ol", {});
      order.ops.concat(null).forEach((_, i) => {
        const item = make(list, "li", { value: i, "data-step": i, class: i > step ? "later" : i === step ? "now" : "" });
        item.append(i === 0 ? "at first " : this.label.get(order.ops[i - 1]) + " ");
        make(item, "code", {}, data.states[order.states[i]][0]);
      });
      const rest = make(told, "ul", {});
      for (const { op, no } of left.filter(({ wait }) => !wait)) {
        const item = make(rest, "li", { class: no ? "no" : "can" });
        make(item, "b", {}, this.label.get(op));
        if (no) item.append(` cannot be next: ${no}`);
        else {
          item.append(op === order.ops[step] ? " is next here " : " could be next ");
          make(item, "button", { "data-next": op }, "place it");
        }
      }
      const waiting = left.filter(({ wait }) => wait);
      if (waiting.length) {
        make(rest, "li", { class: "wait" }, `${waiting.map(({ op }) => this.label.get(op)).join(", ")} must wait: ${waiting[0].wait} ${waiting.length > 1 ? "these were" : "it was"} called`);
      }
      if (!left.length) make(rest, "li", {}, "nothing is left");
    }
  }

  const timelines = [...document.querySelectorAll("figure.orders")]
    .filter((figure) => figure.querySelector("script")).map((figure) => new Timeline(figure));

  // One key at a time, where there are several.
  for (const section of document.querySelectorAll("section")) {
    const keys = section.querySelector("select.keys");
    if (!keys) continue;
    const articles = [...section.querySelectorAll("article")];
    keys.parentElement.hidden = false;
    const only = () => articles.forEach((article, i) => { article.hidden = i !== keys.selectedIndex; });
    keys.addEventListener("change", only);
    only();
  }

  const follow = () => {
    const asked = new URLSearchParams(location.hash.slice(1));
    const number = (name, or) => (asked.has(name) && Number.isFinite(Number(asked.get(name))) ? Number(asked.get(name)) : or);
    const timeline = timelines[number("anomaly", 1) - 1];
    if (!timeline || !(asked.has("path") || asked.has("step") || asked.has("op"))) return;
    const article = timeline.figure.closest("article");
    const keys = article && article.closest("section").querySelector("select.keys");
    if (keys) {
      keys.selectedIndex = [...article.closest("section").querySelectorAll("article")].indexOf(article);
      keys.dispatchEvent(new Event("change"));
    }
    if (asked.has("op")) timeline.choose(number("op", 0));
    else timeline.show(number("path", 1) - 1, number("step", Infinity));
    timeline.figure.scrollIntoView({ block: "nearest" });
  };
  addEventListener("hashchange", follow);
  follow();
})();
