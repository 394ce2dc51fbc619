// <scatter-plot data-plot='{…}'>: a run is a point; which columns lie along the axes stands in the address.
(() => {
  "use strict";
  const HEIGHT = 420;
  const PAD = { left: 64, right: 18, top: 14, bottom: 44 };

  const shown = (value) => ink.shown(value, 3);

  // Where values lie between 0 and 1: numbers by their size or its logarithm, anything else in places of its own.
  function scaleOf(values, log) {
    const known = values.filter((value) => value !== null && value !== undefined);
    const numbers = known.map(Number);
    if (!known.length) return { unit: () => undefined, ticks: [] };
    if (!numbers.every(Number.isFinite)) {
      const places = [...new Set(known.map(String))].sort();
      const at = new Map(places.map((place, index) => [place, (index + 0.5) / places.length]));
      return { unit: (value) => at.get(String(value)), ticks: places.slice(0, 12).map((place) => [at.get(place), place]) };
    }
    const usable = log ? numbers.filter((value) => value > 0) : numbers;
    const to = log ? Math.log10 : (value) => value;
    const [low, high] = usable.reduce(([a, b], value) => [Math.min(a, to(value)), Math.max(b, to(value))], [Infinity, -Infinity]);
    const room = (high - low || Math.abs(high) || 1) * 0.04;
    const [a, b] = [low - room, high + room];
    const unit = (value) => (log && value <= 0 ? undefined : (to(Number(value)) - a) / (b - a));
    const ticks = [];
    if (log) for (let power = Math.ceil(a); power <= b; power += 1) ticks.push([unit(10 ** power), shown(10 ** power)]);
    if (ticks.length < 2) {
      ticks.length = 0;
      const rough = (b - a) / 5;
      const power = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
      for (let at = Math.ceil(a / step) * step; at <= b; at += step) ticks.push([(at - a) / (b - a), shown(log ? 10 ** at : Math.abs(at) < step / 1e6 ? 0 : at)]);
    }
    return { unit, ticks };
  }

  class ScatterPlot extends HTMLElement {
    connectedCallback() {
      this.plot = JSON.parse(this.dataset.plot);
      this.holder = this.querySelector(".canvas");
      this.canvas = document.createElement("canvas");
      this.tip = Object.assign(document.createElement("div"), { className: "tip", hidden: true });
      this.holder.replaceChildren(this.canvas, this.tip);
      const query = new URLSearchParams(location.search);
      const keys = this.plot.columns.map((column) => column.key);
      const params = keys.filter((key) => key.startsWith("params."));
      const metrics = keys.filter((key) => key.startsWith("metrics."));
      const first = { x: params[0] ?? keys[1] ?? keys[0], y: metrics[0] ?? keys[0], c: metrics[1] ?? "" };
      for (const field of this.querySelectorAll("[data-axis]")) {
        const asked = query.get(field.dataset.axis);
        field.value = keys.includes(asked) || asked === "" ? asked : first[field.dataset.axis];
      }
      for (const box of this.querySelectorAll("[data-scale]")) box.checked = query.get(box.dataset.scale) === "1";
      this.addEventListener("change", (event) => {
        event.stopPropagation();
        this.writeAddress();
        this.draw();
      });
      this.redraw = () => this.draw();
      document.addEventListener("theme", this.redraw);
      this.observer = new ResizeObserver(this.redraw);
      this.observer.observe(this.holder);
      this.holder.addEventListener("pointermove", (event) => this.hover(event));
      this.holder.addEventListener("pointerleave", () => this.mark(null));
      this.holder.addEventListener("click", () => {
        if (this.marked) document.querySelector(`tr[data-run="${this.marked}"] a.name`)?.click();
      });
      this.holder.addEventListener("keydown", (event) => {
        const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!move || !this.points.length) return;
        event.preventDefault();
        const at = this.points.findIndex((point) => point.run.id === this.marked);
        this.mark(this.points[(at + move + this.points.length) % this.points.length]);
      });
      this.listening = new AbortController();
      (this.closest("#results") ?? document).addEventListener("pointerover", (event) => {
        const row = event.target.closest?.("tr[data-run]");
        if (row) this.mark(this.points.find((point) => point.run.id === row.dataset.run) ?? null);
      }, { signal: this.listening.signal });
    }
    disconnectedCallback() {
      document.removeEventListener("theme", this.redraw);
      this.observer.disconnect();
      this.listening.abort();
    }
    writeAddress() {
      const address = new URL(location.href);
      for (const field of this.querySelectorAll("[data-axis]")) address.searchParams.set(field.dataset.axis, field.value);
      for (const box of this.querySelectorAll("[data-scale]"))
        box.checked ? address.searchParams.set(box.dataset.scale, "1") : address.searchParams.delete(box.dataset.scale);
      history.replaceState(history.state, "", address);
    }
    column(axis) {
      const key = this.querySelector(`[data-axis=${axis}]`).value;
      return this.plot.columns.findIndex((column) => column.key === key);
    }
    draw() {
      const width = this.holder.clientWidth;
      if (!width) return;
      this.canvas.width = width * devicePixelRatio;
      this.canvas.height = HEIGHT * devicePixelRatio;
      this.canvas.style.width = `${width}px`;
      const [x, y, c] = [this.column("x"), this.column("y"), this.column("c")];
      const logs = ["lx", "ly"].map((name) => this.querySelector(`[data-scale=${name}]`).checked);
      const values = (at) => this.plot.runs.map((run) => run.values[at]);
      const [sx, sy] = [scaleOf(values(x), logs[0]), scaleOf(values(y), logs[1])];
      const sc = c < 0 ? null : scaleOf(values(c), false);
      const dark = ink.dark(this);
      const plain = ink.of(this, "--series-1");
      this.points = [];
      for (const run of this.plot.runs) {
        const [u, v] = [run.values[x], run.values[y]].map((value, at) => (value === null ? undefined : [sx, sy][at].unit(value)));
        if (u === undefined || v === undefined || Number.isNaN(u) || Number.isNaN(v)) continue;
        const w = sc && run.values[c] !== null ? sc.unit(run.values[c]) : undefined;
        const colour = w === undefined ? plain : ink.ramp(w, dark);
        this.points.push({ run, colour, px: PAD.left + u * (width - PAD.left - PAD.right), py: PAD.top + (1 - v) * (HEIGHT - PAD.top - PAD.bottom) });
      }
      this.frameOf = { width, sx, sy, names: [this.plot.columns[x]?.name ?? "", this.plot.columns[y]?.name ?? ""], at: [x, y, c] };
      this.paint();
    }
    paint() {
      const { width, sx, sy, names } = this.frameOf;
      const context = this.canvas.getContext("2d");
      context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
      context.clearRect(0, 0, width, HEIGHT);
      context.font = `11px ${getComputedStyle(this).fontFamily}`;
      context.strokeStyle = ink.of(this, "--line");
      context.fillStyle = ink.of(this, "--text-3");
      const [across, down] = [width - PAD.left - PAD.right, HEIGHT - PAD.top - PAD.bottom];
      context.textAlign = "right";
      context.textBaseline = "middle";
      for (const [unit, words] of sy.ticks) {
        const y = Math.round(PAD.top + (1 - unit) * down) + 0.5;
        context.beginPath();
        context.moveTo(PAD.left, y);
        context.lineTo(width - PAD.right, y);
        context.stroke();
        context.fillText(words.slice(0, 10), PAD.left - 8, y);
      }
      context.textAlign = "center";
      context.textBaseline = "top";
      for (const [unit, words] of sx.ticks) {
        const x = Math.round(PAD.left + unit * across) + 0.5;
        context.beginPath();
        context.moveTo(x, PAD.top);
        context.lineTo(x, PAD.top + down);
        context.stroke();
        context.fillText(words.slice(0, 14), x, PAD.top + down + 7);
      }
      context.fillStyle = ink.of(this, "--text-2");
      context.fillText(names[0], PAD.left + across / 2, HEIGHT - 16);
      context.textAlign = "left";
      context.fillText(names[1], 4, 0);
      for (const point of this.points) {
        context.globalAlpha = this.marked && this.marked !== point.run.id ? 0.3 : 0.8;
        context.fillStyle = point.colour;
        context.beginPath();
        context.arc(point.px, point.py, point.run.id === this.marked ? 6.5 : 4, 0, 7);
        context.fill();
      }
      context.globalAlpha = 1;
    }
    hover(event) {
      const box = this.canvas.getBoundingClientRect();
      let best = null;
      for (const point of this.points) {
        const away = Math.hypot(event.clientX - box.left - point.px, event.clientY - box.top - point.py);
        if (!best || away < best.away) best = { ...point, away };
      }
      this.mark(best && best.away < 14 ? best : null);
    }
    mark(point) {
      const id = point?.run.id ?? null;
      if (id === this.marked) return;
      this.marked = id;
      this.paint();
      for (const row of (this.closest("#results") ?? document).querySelectorAll("tr[data-run]")) row.classList.toggle("marked", row.dataset.run === id);
      this.tip.hidden = !point;
      if (!point) return;
      const words = this.frameOf.at.filter((at) => at >= 0).map((at) => `${this.plot.columns[at].name} ${typeof point.run.values[at] === "number" ? shown(point.run.values[at]) : point.run.values[at]}`);
      this.tip.replaceChildren(Object.assign(document.createElement("strong"), { textContent: point.run.name }), document.createTextNode(` ${words.join(", ")}`));
      const right = point.px > this.frameOf.width / 2;
      this.tip.style.left = right ? "auto" : `${point.px + 12}px`;
      this.tip.style.right = right ? `${this.frameOf.width - point.px + 12}px` : "auto";
      this.tip.style.top = `${Math.max(0, point.py - 14)}px`;
    }
  }
  customElements.define("scatter-plot", ScatterPlot);
})();
