// <parallel-plot data-plot='{…}'>: runs as lines over an axis for each column. A range that is brushed on an axis keeps
// the runs in it, here and in the table below; it stands in the address.
(() => {
  "use strict";
  const PAD = { left: 60, right: 90, top: 42, bottom: 26 };
  const HEIGHT = 380;
  const SVG = document.querySelector("svg").namespaceURI;

  const shown = (value) => ink.shown(value, 3);
  const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

  // How a column is laid out: numbers on a line, by powers where they span many, anything else as places.
  function axisOf(column, values) {
    const known = values.filter((value) => value !== null && value !== undefined);
    const numbers = known.map(Number);
    const places = [...new Set(known.map(String))];
    const numeric = known.length > 0 && numbers.every(Number.isFinite);
    if (!numeric) {
      places.sort();
      const at = new Map(places.map((place, index) => [place, places.length < 2 ? 0.5 : index / (places.length - 1)]));
      return { ...column, unit: (value) => at.get(String(value)), ticks: places.slice(0, 24).map((place) => [at.get(place), place]) };
    }
    const [low, high] = numbers.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
    const powers = low > 0 && high / low > 50;
    const scale = powers ? Math.log10 : (value) => value;
    const back = powers ? (value) => 10 ** value : (value) => value;
    const [a, b] = [scale(low), scale(high)];
    const few = new Set(numbers).size <= 6 ? [...new Set(numbers)].sort((x, y) => x - y) : null;
    const marks = few ?? Array.from({ length: 5 }, (_, at) => back(a + ((b - a) * at) / 4));
    const unit = (value) => (b === a ? 0.5 : (scale(Number(value)) - a) / (b - a));
    return { ...column, numeric, unit, value: (at) => back(a + (b - a) * at), ticks: marks.map((mark) => [unit(mark), shown(mark)]) };
  }

  class ParallelPlot extends HTMLElement {
    connectedCallback() {
      this.plot = JSON.parse(this.dataset.plot);
      this.axes = this.plot.columns.map((column, at) => axisOf(column, this.plot.runs.map((run) => run.values[at])));
      this.order = this.axes.map((_, at) => at);
      this.brushes = this.readAddress();
      this.canvas = document.createElement("canvas");
      this.svg = document.createElementNS(SVG, "svg");
      this.replaceChildren(this.canvas, this.svg);
      this.redraw = () => this.draw();
      document.addEventListener("theme", this.redraw);
      this.observer = new ResizeObserver(this.redraw);
      this.observer.observe(this);
      this.listening = new AbortController();
      const rows = this.closest("#results") ?? document;
      rows.addEventListener("pointerover", (event) => {
        const row = event.target.closest?.("tr[data-run]");
        if ((row?.dataset.run ?? null) !== this.marked) {
          this.marked = row?.dataset.run ?? null;
          this.paint();
        }
      }, { signal: this.listening.signal });
      this.addEventListener("pointermove", (event) => this.hover(event));
    }
    disconnectedCallback() {
      document.removeEventListener("theme", this.redraw);
      this.observer.disconnect();
      this.listening.abort();
    }

    readAddress() {
      const found = new Map();
      for (const one of new URLSearchParams(location.search).getAll("brush")) {
        const [key, range] = [one.slice(0, one.lastIndexOf(":")), one.slice(one.lastIndexOf(":") + 1)];
        const [low, high] = range.split("~").map(Number);
        const at = this.axes.findIndex((axis) => axis.key === key);
        if (at >= 0 && low <= high) found.set(at, [low, high]);
      }
      return found;
    }
    writeAddress() {
      const address = new URL(location.href);
      address.searchParams.delete("brush");
      for (const [at, [low, high]] of this.brushes)
        address.searchParams.append("brush", `${this.axes[at].key}:${low.toFixed(4)}~${high.toFixed(4)}`);
      history.replaceState(history.state, "", address);
    }

    kept(run) {
      for (const [at, [low, high]] of this.brushes) {
        const unit = run.values[at] === null ? undefined : this.axes[at].unit(run.values[at]);
        if (unit === undefined || unit < low - 1e-6 || unit > high + 1e-6) return false;
      }
      return true;
    }
    x(place) {
      const across = this.width - PAD.left - PAD.right;
      return PAD.left + (this.axes.length < 2 ? 0.5 : place / (this.axes.length - 1)) * across;
    }
    y(unit) {
      return PAD.top + (1 - unit) * (HEIGHT - PAD.top - PAD.bottom);
    }

    draw() {
      this.width = Math.max(this.clientWidth, this.axes.length * 92);
      this.canvas.width = this.width * devicePixelRatio;
      this.canvas.height = HEIGHT * devicePixelRatio;
      this.canvas.style.width = `${this.width}px`;
      this.svg.setAttribute("width", this.width);
      this.svg.setAttribute("height", HEIGHT);
      this.drawAxes();
      this.paint();
      this.reflect();
    }
    colourOf(run) {
      const at = this.axes.findIndex((axis) => axis.key === this.plot.colour);
      const unit = at < 0 || run.values[at] === null ? null : this.axes[at].unit(run.values[at]);
      return unit === null || unit === undefined ? this.plain : ink.ramp(unit, this.dark);
    }
    paint() {
      const context = this.canvas.getContext("2d");
      context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
      context.clearRect(0, 0, this.width, HEIGHT);
      const faint = ink.of(this, "--line-strong");
      this.plain = ink.of(this, "--text-3");
      this.dark = ink.dark(this);
      const runs = this.plot.runs.map((run) => ({ run, kept: this.kept(run) }));
      const many = runs.filter((one) => one.kept).length;
      for (const { run } of runs.filter((one) => !one.kept)) this.path(context, run, faint, 0.35, 1);
      for (const { run, kept } of runs) if (kept && run.id !== this.marked) this.path(context, run, this.colourOf(run), this.marked ? 0.25 : many > 150 ? 0.45 : 0.75, 1.2);
      const marked = this.plot.runs.find((run) => run.id === this.marked);
      if (marked) this.path(context, marked, this.colourOf(marked), 1, 2.8);
    }
    path(context, run, colour, alpha, width) {
      context.strokeStyle = colour;
      context.globalAlpha = alpha;
      context.lineWidth = width;
      context.beginPath();
      let drawing = false;
      this.order.forEach((at, place) => {
        const value = run.values[at];
        const unit = value === null || value === undefined ? undefined : this.axes[at].unit(value);
        if (unit === undefined) {
          drawing = false;
          return;
        }
        drawing ? context.lineTo(this.x(place), this.y(unit)) : context.moveTo(this.x(place), this.y(unit));
        drawing = true;
      });
      context.stroke();
    }

    node(name, attributes, parent, text) {
      const made = document.createElementNS(SVG, name);
      for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
      if (text !== undefined) made.textContent = text;
      parent.append(made);
      return made;
    }
    drawAxes() {
      this.svg.replaceChildren();
      this.order.forEach((at, place) => {
        const axis = this.axes[at];
        const group = this.node("g", { class: "axis", transform: `translate(${this.x(place)} 0)` }, this.svg);
        const name = this.node("text", { class: "axis-name", y: 18, "text-anchor": "middle" }, group, cut(axis.name, Math.max(8, this.width / this.axes.length / 8)));
        this.node("title", {}, name, axis.name);
        this.moves(name, at);
        this.node("line", { class: "axis-line", y1: this.y(1), y2: this.y(0) }, group);
        for (const [unit, words] of axis.ticks) this.node("text", { class: "axis-tick", x: 7, y: this.y(unit) + 4 }, group, cut(words, 14));
        const brush = this.brushes.get(at);
        if (brush) this.node("rect", { class: "axis-brush", x: -7, width: 14, y: this.y(brush[1]) - 1, height: Math.max(4, this.y(brush[0]) - this.y(brush[1]) + 2), rx: 2 }, group);
        const grip = this.node("rect", { class: "axis-grip", x: -12, width: 24, y: this.y(1) - 6, height: this.y(0) - this.y(1) + 12, tabindex: 0, role: "slider", "aria-label": `Range of ${axis.name}`, "aria-valuetext": brush ? "a range is kept" : "all" }, group);
        this.brushing(grip, at);
      });
    }
    unitAt(event) {
      const y = event.clientY - this.svg.getBoundingClientRect().top;
      return Math.min(1, Math.max(0, 1 - (y - PAD.top) / (HEIGHT - PAD.top - PAD.bottom)));
    }
    brushing(grip, at) {
      grip.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        const from = this.unitAt(event);
        const follow = (moved) => {
          const to = this.unitAt(moved);
          if (Math.abs(to - from) < 0.01) this.brushes.delete(at);
          else this.brushes.set(at, [Math.min(from, to), Math.max(from, to)]);
          this.changed();
        };
        const stop = (ended) => {
          follow(ended);
          window.removeEventListener("pointermove", follow);
          window.removeEventListener("pointerup", stop);
          this.writeAddress();
        };
        window.addEventListener("pointermove", follow);
        window.addEventListener("pointerup", stop);
      });
      grip.addEventListener("keydown", (event) => {
        const [low, high] = this.brushes.get(at) ?? [0, 1];
        const next = { ArrowUp: [low + 0.05, high], ArrowDown: [low, high - 0.05], Escape: null }[event.key];
        if (next === undefined) return;
        event.preventDefault();
        next && next[0] < next[1] ? this.brushes.set(at, next) : this.brushes.delete(at);
        this.changed();
        this.writeAddress();
        this.svg.querySelectorAll(".axis-grip")[this.order.indexOf(at)].focus();
      });
    }
    moves(name, at) {
      name.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        const stop = (ended) => {
          const x = ended.clientX - this.svg.getBoundingClientRect().left;
          const across = (this.width - PAD.left - PAD.right) / Math.max(this.axes.length - 1, 1);
          const place = Math.min(this.axes.length - 1, Math.max(0, Math.round((x - PAD.left) / across)));
          this.order.splice(this.order.indexOf(at), 1);
          this.order.splice(place, 0, at);
          this.draw();
        };
        window.addEventListener("pointerup", stop, { once: true });
      });
    }
    changed() {
      this.drawAxes();
      this.paint();
      this.reflect();
    }
    // The table below shows what is kept, and a sentence says how many that are.
    reflect() {
      const kept = new Set(this.plot.runs.filter((run) => this.kept(run)).map((run) => run.id));
      const holder = this.closest("#results") ?? document;
      for (const row of holder.querySelectorAll("tr[data-run]")) row.hidden = !kept.has(row.dataset.run);
      const words = holder.querySelector("[data-kept]");
      if (words) words.textContent = this.brushes.size ? `${kept.size} of ${this.plot.runs.length} runs kept.` : "";
    }
    hover(event) {
      const box = this.canvas.getBoundingClientRect();
      const [px, py] = [event.clientX - box.left, event.clientY - box.top];
      let best = null;
      for (const run of this.plot.runs) {
        if (!this.kept(run)) continue;
        for (let place = 0; place + 1 < this.order.length; place += 1) {
          const [x0, x1] = [this.x(place), this.x(place + 1)];
          if (px < x0 || px > x1) continue;
          const [a, b] = [this.order[place], this.order[place + 1]].map((at) => (run.values[at] === null ? undefined : this.axes[at].unit(run.values[at])));
          if (a === undefined || b === undefined) continue;
          const away = Math.abs(this.y(a) + ((this.y(b) - this.y(a)) * (px - x0)) / (x1 - x0) - py);
          if (!best || away < best.away) best = { run, away };
        }
      }
      const id = best && best.away < 8 ? best.run.id : null;
      if (id === this.marked) return;
      this.marked = id;
      this.title = id ? best.run.name : "";
      this.paint();
      for (const row of (this.closest("#results") ?? document).querySelectorAll("tr[data-run]")) row.classList.toggle("marked", row.dataset.run === id);
    }
  }
  customElements.define("parallel-plot", ParallelPlot);
})();
