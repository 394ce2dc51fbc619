// <run-chart>: lines of one metric of many runs on a canvas. It draws what it is given; chart-board gives it.
//
// Each line has xs of its own, so hundreds of runs need no common axis. The lines are drawn once; what the pointer does
// is drawn on a second canvas above them.
(() => {
  "use strict";
  const PAD = { left: 54, right: 12, top: 10, bottom: 24 };
  const NEAR = 28;

  const { shown } = ink;
  const spell = (seconds) => {
    const size = Math.abs(seconds);
    if (size < 120) return `${shown(seconds)} s`;
    if (size < 7200) return `${shown(seconds / 60)} min`;
    if (size < 172800) return `${shown(seconds / 3600)} h`;
    return `${shown(seconds / 86400)} d`;
  };
  const instant = (seconds, fine) => {
    const text = new Date(seconds * 1e3).toISOString();
    return fine ? text.slice(11, 19) : `${text.slice(5, 10)} ${text.slice(11, 16)}`;
  };

  function steps(low, high, count, units = [1, 2, 5, 10]) {
    const span = high - low || Math.abs(high) || 1;
    const rough = span / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = units.map((unit) => unit * power).find((unit) => unit >= rough) ?? 10 * power;
    const found = [];
    for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6; at += step) found.push(Math.abs(at) < step * 1e-9 ? 0 : at);
    return found;
  }
  function decades(low, high) {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1)
      for (const unit of high / low > 1e3 ? [1] : [1, 2, 5]) {
        const at = unit * 10 ** power;
        if (at >= low * 0.999 && at <= high * 1.001) found.push(at);
      }
    return found.length > 8 ? found.filter((_, place) => place % Math.ceil(found.length / 8) === 0) : found;
  }

  // An exponential moving average that begins unbiased, so that the first points are not drawn to zero.
  function smoothed(ys, weight) {
    if (!weight) return ys;
    let mean = 0;
    let share = 0;
    return ys.map((y) => {
      if (y === null) return null;
      mean = mean * weight + (1 - weight) * y;
      share = share * weight + (1 - weight);
      return mean / share;
    });
  }

  class RunChart extends HTMLElement {
    connectedCallback() {
      if (this.base) return;
      this.base = document.createElement("canvas");
      this.over = document.createElement("canvas");
      this.tip = document.createElement("div");
      this.tip.className = "tip";
      this.tip.hidden = true;
      this.replaceChildren(this.base, this.over, this.tip);
      this.lines = [];
      this.settings = { x: "step", smooth: 0, log: false };
      this.zoom = null;
      this.addEventListener("pointermove", (event) => this.pointed(event));
      this.addEventListener("pointerleave", () => this.left());
      this.addEventListener("pointerdown", (event) => this.pressed(event));
      this.addEventListener("pointerup", (event) => this.released(event));
      this.addEventListener("dblclick", () => this.tell("zoomed", null));
      this.addEventListener("keydown", (event) => this.keyed(event));
      this.observer = new ResizeObserver(() => this.draw());
      this.observer.observe(this);
    }
    disconnectedCallback() {
      this.observer?.disconnect();
    }

    // lines: [{id, name, colour, xs, ys}]
    show(lines, settings) {
      this.settings = settings;
      const even = (ys) => ys && smoothed(ys, settings.smooth);
      this.lines = lines.map((line) => ({ ...line, smooth: even(line.ys), low: even(line.low), high: even(line.high) }));
      this.bars = lines.length > 0 && lines.every((line) => line.xs.length === 1);
      this.draw();
    }
    zoomTo(range) {
      this.zoom = range;
      this.draw();
    }
    highlight(id) {
      if (this.marked === id) return;
      this.marked = id;
      this.overdraw(null);
    }
    tell(kind, detail) {
      this.dispatchEvent(new CustomEvent(kind, { bubbles: true, detail }));
    }

    draw() {
      const width = this.clientWidth;
      const height = this.clientHeight;
      if (!width || !height || !this.base) return;
      const style = getComputedStyle(this);
      this.ink = { line: ink.of(this.tip, "--line"), text: style.color, mark: ink.of(this.tip, "--text") };
      for (const canvas of [this.base, this.over]) {
        canvas.width = width * devicePixelRatio;
        canvas.height = height * devicePixelRatio;
      }
      this.size = { width, height };
      const context = this.base.getContext("2d");
      context.scale(devicePixelRatio, devicePixelRatio);
      context.font = `11px ${style.fontFamily}`;
      if (this.bars) this.drawBars(context);
      else if (this.measure()) {
        this.drawAxes(context);
        this.drawLines(context);
      }
      // Lines that moved while the pointer rests are named anew.
      const found = this.last && !this.bars && this.range ? this.nearest(...this.last) : null;
      this.overdraw(found);
    }

    measure() {
      let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
      for (const { xs } of this.lines)
        for (const x of xs) {
          if (x < x0) x0 = x;
          if (x > x1) x1 = x;
        }
      if (this.zoom) [x0, x1] = this.zoom;
      for (const { xs, smooth, low, high } of this.lines)
        for (const ys of low ? [low, high] : [smooth])
          for (let at = 0; at < xs.length; at += 1) {
            const y = ys[at];
            if (y === null || xs[at] < x0 || xs[at] > x1 || (this.settings.log && y <= 0)) continue;
            if (y < y0) y0 = y;
            if (y > y1) y1 = y;
          }
      if (x0 > x1 || y0 > y1) return false;
      if (x0 === x1) [x0, x1] = [x0 - 0.5, x1 + 0.5];
      const log = this.settings.log;
      if (log) [y0, y1] = y0 === y1 ? [y0 / 2, y1 * 2] : [y0 / 1.15, y1 * 1.15];
      else {
        const room = (y1 - y0 || Math.abs(y1) || 1) * 0.06;
        [y0, y1] = [y0 >= 0 && y0 - room < 0 ? 0 : y0 - room, y1 + room];
      }
      const { width, height } = this.size;
      const across = width - PAD.left - PAD.right;
      const down = height - PAD.top - PAD.bottom;
      const [l0, l1] = log ? [Math.log10(y0), Math.log10(y1)] : [y0, y1];
      this.range = { x0, x1, y0, y1 };
      this.toX = (x) => PAD.left + ((x - x0) / (x1 - x0)) * across;
      this.fromX = (pixel) => x0 + ((pixel - PAD.left) / across) * (x1 - x0);
      this.toY = (y) => PAD.top + (1 - ((log ? Math.log10(y) : y) - l0) / (l1 - l0)) * down;
      return true;
    }

    drawAxes(context) {
      const { x0, x1, y0, y1 } = this.range;
      const { width, height } = this.size;
      context.strokeStyle = this.ink.line;
      context.fillStyle = this.ink.text;
      context.lineWidth = 1;
      context.textAlign = "right";
      context.textBaseline = "middle";
      for (const at of this.settings.log ? decades(y0, y1) : steps(y0, y1, Math.max(3, height / 55))) {
        const y = Math.round(this.toY(at)) + 0.5;
        context.beginPath();
        context.moveTo(PAD.left, y);
        context.lineTo(width - PAD.right, y);
        context.stroke();
        context.fillText(shown(at), PAD.left - 8, y);
      }
      context.textBaseline = "top";
      context.textAlign = "center";
      const words = this.words(x1 - x0);
      const many = Math.max(2, width / 110);
      for (const at of steps(x0, x1, many)) {
        if (this.settings.x === "step" && !Number.isInteger(at)) continue;
        const x = this.toX(at);
        const half = context.measureText(words(at)).width / 2;
        context.fillText(words(at), Math.min(Math.max(x, PAD.left + half - 6), width - half - 2), height - PAD.bottom + 8);
      }
    }
    words(span) {
      if (this.settings.x === "relative") return spell;
      if (this.settings.x === "wall") return (at) => instant(at, span < 7200);
      return shown;
    }

    path(context, line, ys) {
      const { x0, x1 } = this.range;
      const { xs } = line;
      const log = this.settings.log;
      let drawing = false;
      context.beginPath();
      for (let at = 0; at < xs.length; at += 1) {
        const y = ys[at];
        // One point beyond each end stays, so that lines leave the picture instead of ending in it.
        if (y === null || (log && y <= 0) || xs[at + 1] < x0 || xs[at - 1] > x1) {
          drawing = false;
          continue;
        }
        const [px, py] = [this.toX(xs[at]), this.toY(y)];
        drawing ? context.lineTo(px, py) : context.moveTo(px, py);
        drawing = true;
      }
      context.stroke();
    }
    clip(context) {
      const { width, height } = this.size;
      context.beginPath();
      context.rect(PAD.left - 1, 0, width - PAD.left - PAD.right + 2, height - PAD.bottom + 1);
      context.clip();
    }
    drawLines(context) {
      context.save();
      this.clip(context);
      context.lineJoin = "round";
      const many = this.lines.length;
      for (const line of this.lines) {
        context.strokeStyle = line.colour;
        if (line.low) this.band(context, line);
        if (this.settings.smooth && many <= 12) {
          context.globalAlpha = 0.22;
          context.lineWidth = 1;
          this.path(context, line, line.ys);
        }
        context.globalAlpha = many > 60 ? 0.55 : many > 12 ? 0.8 : 1;
        context.lineWidth = many > 60 ? 1 : 1.5;
        this.path(context, line, line.smooth);
        if (line.xs.length === 1 || (many <= 8 && line.xs.length <= 12)) this.points(context, line);
      }
      context.restore();
    }
    band(context, line) {
      const edge = (ys) => line.xs.map((x, at) => [this.toX(x), this.toY(Math.max(ys[at], this.range.y0))]);
      context.globalAlpha = 0.12;
      context.fillStyle = line.colour;
      context.beginPath();
      for (const at of [...edge(line.high), ...edge(line.low).reverse()]) context.lineTo(...at);
      context.fill();
    }
    points(context, line) {
      context.fillStyle = line.colour;
      line.xs.forEach((x, at) => {
        const y = line.smooth[at];
        if (y === null || (this.settings.log && y <= 0)) return;
        context.beginPath();
        context.arc(this.toX(x), this.toY(y), 2.4, 0, 7);
        context.fill();
      });
    }

    // A metric that was logged once a run: the values themselves, greatest first.
    drawBars(context) {
      const { width, height } = this.size;
      const room = Math.floor((height - 8) / 20);
      const known = this.lines.filter((line) => line.ys[0] !== null).sort((a, b) => b.ys[0] - a.ys[0]);
      this.listed = known.slice(0, room);
      const most = Math.max(...known.map((line) => Math.abs(line.ys[0])), 1e-300);
      const from = Math.min(150, width * 0.34);
      context.textBaseline = "middle";
      this.listed.forEach((line, place) => {
        const y = 4 + place * 20;
        const long = (Math.abs(line.ys[0]) / most) * (width - from - 70);
        context.fillStyle = line.colour;
        context.globalAlpha = 0.85;
        context.fillRect(from, y + 4, Math.max(1, long), 11);
        context.globalAlpha = 1;
        context.fillStyle = this.ink.text;
        context.textAlign = "right";
        let name = line.name;
        while (name.length > 4 && context.measureText(name).width > from - 12) name = `${name.slice(0, -2)}…`.replace("……", "…");
        context.fillText(name, from - 8, y + 10);
        context.textAlign = "left";
        context.fillText(shown(line.ys[0]), from + long + 6, y + 10);
      });
    }

    // --- the pointer -----------------------------------------------------------------------------------------------

    nearest(px, py) {
      if (this.bars) return { line: this.listed[Math.floor((py - 4) / 20)], at: 0 };
      const x = this.fromX(px);
      let best = null;
      for (const line of this.lines) {
        const at = this.closest(line.xs, x);
        const y = line.smooth[at];
        if (at < 0 || y === null || y === undefined || (this.settings.log && y <= 0)) continue;
        const away = Math.hypot(this.toY(y) - py, (this.toX(line.xs[at]) - px) / 3);
        if (!best || away < best.away) best = { line, at, away };
      }
      return best && (best.away < NEAR || this.lines.length === 1) ? best : null;
    }
    closest(xs, x) {
      let [low, high] = [0, xs.length - 1];
      while (low < high) {
        const middle = (low + high) >> 1;
        xs[middle] < x ? (low = middle + 1) : (high = middle);
      }
      return low > 0 && x - xs[low - 1] < xs[low] - x ? low - 1 : low;
    }
    pointed(event) {
      if (!this.size || (!this.range && !this.bars)) return;
      const box = this.getBoundingClientRect();
      const [px, py] = [event.clientX - box.left, event.clientY - box.top];
      if (this.pressedAt !== undefined) return this.overdraw({ drag: [this.pressedAt, px] });
      this.last = [px, py];
      const found = this.nearest(px, py);
      this.marked = found?.line?.id ?? null;
      this.overdraw(found?.line ? found : null);
      this.tell("marked", this.marked);
    }
    left() {
      this.pressedAt = this.last = undefined;
      this.marked = null;
      this.overdraw(null);
      this.tell("marked", null);
    }
    pressed(event) {
      if (this.bars || event.button) return;
      this.pressedAt = event.clientX - this.getBoundingClientRect().left;
      this.setPointerCapture(event.pointerId);
    }
    released(event) {
      const from = this.pressedAt;
      this.pressedAt = undefined;
      if (from === undefined || !this.range) return;
      const to = event.clientX - this.getBoundingClientRect().left;
      if (Math.abs(to - from) > 6) this.tell("zoomed", [this.fromX(Math.min(from, to)), this.fromX(Math.max(from, to))]);
      else if (this.marked) this.tell("opened", this.marked);
      this.overdraw(null);
    }
    keyed(event) {
      if (event.key === "Escape") return this.tell("zoomed", null);
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if ((!step && !move) || !this.lines.length) return;
      event.preventDefault();
      const place = this.lines.findIndex((line) => line.id === this.marked);
      const line = this.lines[step ? (place + step + this.lines.length) % this.lines.length : Math.max(place, 0)];
      this.at = Math.min(Math.max((this.at ?? line.xs.length - 1) + (move ?? 0), 0), line.xs.length - 1);
      this.marked = line.id;
      this.overdraw({ line, at: this.at });
      this.tell("marked", line.id);
    }

    overdraw(found) {
      if (!this.size) return;
      const context = this.over.getContext("2d");
      context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
      context.clearRect(0, 0, this.size.width, this.size.height);
      const line = found?.line ?? this.lines.find((one) => one.id === this.marked);
      this.base.classList.toggle("dimmed", Boolean(line) && this.lines.length > 1);
      this.tip.hidden = true;
      if (found?.drag) {
        context.fillStyle = this.ink.mark;
        context.globalAlpha = 0.1;
        context.fillRect(Math.min(...found.drag), PAD.top, Math.abs(found.drag[1] - found.drag[0]), this.size.height - PAD.top - PAD.bottom);
        return;
      }
      if (!line || this.bars || !this.range) return;
      context.save();
      this.clip(context);
      context.strokeStyle = line.colour;
      context.lineWidth = 2.4;
      context.lineJoin = "round";
      this.path(context, line, line.smooth);
      context.restore();
      if (!found) return;
      const [x, y] = [line.xs[found.at], line.smooth[found.at]];
      if (y === null || y === undefined) return;
      context.fillStyle = line.colour;
      context.beginPath();
      context.arc(this.toX(x), this.toY(y), 3.6, 0, 7);
      context.fill();
      this.label(line, x, y, line.ys[found.at]);
    }
    label(line, x, y, raw) {
      const words = this.words(0);
      const name = this.settings.x === "step" ? `step ${shown(x)}` : words(x);
      const value = this.settings.smooth && raw !== y ? `${shown(y)} (${shown(raw)})` : shown(y);
      const strong = document.createElement("strong");
      strong.textContent = value;
      const rest = document.createElement("span");
      rest.textContent = ` ${line.name}, ${name}`;
      this.tip.replaceChildren(strong, rest);
      this.tip.hidden = false;
      const right = this.toX(x) > this.size.width / 2;
      this.tip.style.left = right ? "auto" : `${this.toX(x) + 10}px`;
      this.tip.style.right = right ? `${this.size.width - this.toX(x) + 10}px` : "auto";
      this.tip.style.top = `${Math.max(0, Math.min(this.toY(y) - 34, this.size.height - 40))}px`;
    }
  }
  customElements.define("run-chart", RunChart);
})();
