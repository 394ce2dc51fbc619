// <chart-board>: the charts of one or many runs. It asks for the curves of what is in sight, in one request for all
// runs, gives each run its colour, and keeps charts, list and table at the same run.
(() => {
  "use strict";
  const PALETTE = 8;
  const BUDGET = 60000;
  const POLL_MS = 5000;
  const BINS = 240;

  class ChartBoard extends HTMLElement {
    connectedCallback() {
      this.plot = JSON.parse(this.dataset.plot);
      this.runs = this.plot.runs;
      this.curves = new Map();
      this.hidden_runs = new Set();
      this.wanted = new Set();
      this.charts = new Map([...this.querySelectorAll("figure[data-metric]")].map((one) => [one.dataset.metric, one]));
      this.holder = this.closest(".runs, .board-holder, main");
      this.readAddress();
      this.colourRuns();
      this.listen();
      this.sight = new IntersectionObserver((entries) => {
        for (const entry of entries)
          if (entry.isIntersecting && !this.curves.has(entry.target.dataset.metric)) this.want(entry.target.dataset.metric);
      }, { rootMargin: "200px" });
      for (const figure of this.charts.values()) this.sight.observe(figure);
      this.live = this.hasAttribute("data-live") && this.runs.some((run) => run.state === "RUNNING");
      if (this.live) this.timer = setInterval(() => this.poll(), POLL_MS);
      this.onTheme = () => {
        this.colourRuns();
        this.redraw();
      };
      document.addEventListener("theme", this.onTheme);
    }
    disconnectedCallback() {
      this.sight?.disconnect();
      clearInterval(this.timer);
      document.removeEventListener("theme", this.onTheme);
      this.abort?.abort();
      this.listening?.abort();
    }

    // --- settings, in the address -------------------------------------------------------------------------------------

    readAddress() {
      const query = new URLSearchParams(location.search);
      const smooth = Number(query.get("smooth"));
      this.settings = {
        x: ["relative", "wall"].includes(query.get("x")) ? query.get("x") : "step",
        smooth: smooth > 0 && smooth < 1 ? smooth : 0,
        log: query.get("log") === "1",
        mean: query.get("mean") === "1" && this.runs.some((run) => run.group),
      };
      for (const id of (query.get("hide") ?? "").split(",").filter(Boolean))
        for (const run of this.runs) if (run.id.endsWith(id)) this.hidden_runs.add(run.id);
      for (const field of this.fields()) {
        const value = this.settings[field.dataset.setting];
        field.type === "checkbox" ? (field.checked = value) : (field.value = String(value));
      }
      this.say();
    }
    fields() {
      return [...this.holder.querySelectorAll("[data-setting]")];
    }
    say() {
      const output = this.holder.querySelector("[data-shows=smooth]");
      if (output) output.textContent = String(this.settings.smooth);
    }
    writeAddress() {
      const address = new URL(location.href);
      const put = (name, value) => (value ? address.searchParams.set(name, value) : address.searchParams.delete(name));
      put("x", this.settings.x === "step" ? "" : this.settings.x);
      put("smooth", this.settings.smooth ? String(this.settings.smooth) : "");
      put("log", this.settings.log ? "1" : "");
      put("mean", this.settings.mean ? "1" : "");
      put("hide", [...this.hidden_runs].map((id) => id.slice(-8)).join(","));
      history.replaceState(history.state, "", address);
      // What goes on from here, such as a link to a page of the table, must not lose it.
      const state = document.getElementById("state");
      if (!state) return;
      for (const name of ["x", "smooth", "log", "mean", "hide"]) {
        state.querySelector(`input[name=${name}]`)?.remove();
        const value = address.searchParams.get(name);
        if (value) state.append(Object.assign(document.createElement("input"), { type: "hidden", name, value }));
      }
    }
    set(field) {
      const name = field.dataset.setting;
      const before = this.settings.x;
      this.settings[name] = field.type === "checkbox" ? field.checked : field.type === "range" ? Number(field.value) : field.value;
      this.say();
      this.writeAddress();
      if (this.settings.x !== before) {
        this.zoom = null;
        this.again();
      } else this.redraw();
    }

    // --- colours ------------------------------------------------------------------------------------------------------

    colourRuns() {
      const named = Array.from({ length: PALETTE }, (_, at) => ink.of(this, `--series-${at + 1}`));
      const dark = ink.dark(this);
      const of = (at) => (at < PALETTE ? named[at] : `hsl(${(at * 137.5) % 360} ${dark ? "70% 68%" : "62% 42%"})`);
      const grouped = this.runs.some((run) => run.group);
      const places = new Map();
      this.colours = new Map(this.runs.map((run, at) => {
        if (!grouped) return [run.id, of(at)];
        if (!places.has(run.group)) places.set(run.group, places.size);
        return [run.id, of(places.get(run.group))];
      }));
      for (const element of this.holder.querySelectorAll("[data-run] .swatch")) {
        const id = element.closest("[data-run]").dataset.run;
        element.hidden = !this.colours.has(id);
        if (this.colours.has(id)) element.style.background = this.hidden_runs.has(id) ? "" : this.colours.get(id);
        element.setAttribute("aria-pressed", String(this.hidden_runs.has(id)));
        element.closest("[data-run]").classList.toggle("off", this.hidden_runs.has(id));
      }
      this.names = new Map(this.runs.map((run) => [run.id, grouped && run.group ? `${run.name} (${run.group})` : run.name]));
    }

    // --- curves -------------------------------------------------------------------------------------------------------

    want(key) {
      this.wanted.add(key);
      if (this.asking) return;
      this.asking = true;
      // All charts that came into sight together are one request.
      requestAnimationFrame(() => {
        this.asking = false;
        const keys = [...this.wanted];
        this.wanted.clear();
        for (const key of keys) this.note(key, "Loading");
        for (let at = 0; at < keys.length; at += 6) this.ask(keys.slice(at, at + 6), this.runs.map((run) => run.id));
      });
    }
    async ask(keys, runs) {
      const points = Math.max(40, Math.min(2000, Math.floor(BUDGET / Math.max(this.runs.length, 1))));
      const round = this.round;
      try {
        const reply = await fetch(this.dataset.url, {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify({ runs, keys, x: this.settings.x, points }),
        });
        if (!reply.ok) throw new Error((await reply.json()).detail);
        const found = await reply.json();
        if (round !== this.round || !this.isConnected) return;
        for (const key of keys) {
          const kept = runs.length < this.runs.length ? this.curves.get(key) ?? new Map() : new Map();
          for (const curve of found) if (curve.key === key) kept.set(curve.run_id, curve);
          this.curves.set(key, kept);
          this.drawOne(key);
        }
      } catch (error) {
        for (const key of keys) this.note(key, `It could not be drawn: ${error.message}`);
      }
    }
    again() {
      this.round = (this.round ?? 0) + 1;
      const known = [...this.curves.keys()];
      this.curves.clear();
      for (const key of known) this.want(key);
    }
    poll() {
      if (document.hidden) return;
      const running = this.runs.filter((run) => run.state === "RUNNING").map((run) => run.id);
      const inSight = [...this.charts].filter(([key, figure]) => {
        const box = figure.getBoundingClientRect();
        return this.curves.has(key) && box.bottom > 0 && box.top < innerHeight;
      });
      if (running.length && inSight.length) this.ask(inSight.map(([key]) => key).slice(0, 12), running);
    }
    redraw() {
      cancelAnimationFrame(this.frame);
      this.frame = requestAnimationFrame(() => {
        for (const key of this.curves.keys()) this.drawOne(key);
      });
    }
    drawOne(key) {
      const figure = this.charts.get(key);
      const curves = this.curves.get(key);
      const lines = [];
      let most = 0;
      let bad = 0;
      for (const run of this.runs) {
        const curve = curves.get(run.id);
        if (!curve || this.hidden_runs.has(run.id)) continue;
        most = Math.max(most, curve.total);
        bad += curve.ys.filter((y) => y === null).length;
        lines.push({ id: run.id, name: this.names.get(run.id), colour: this.colours.get(run.id), xs: curve.xs, ys: curve.ys });
      }
      const drawn = this.settings.mean ? this.means(lines) : lines;
      const chart = figure.querySelector("run-chart");
      chart.zoom = this.zoom;
      chart.show(drawn, this.settings);
      const shown = lines.reduce((sum, line) => Math.max(sum, line.xs.length), 0);
      const notes = [];
      if (most > shown) notes.push(`up to ${most.toLocaleString("en-US")} points, thinned with their peaks kept`);
      if (bad) notes.push(`${bad} not finite, left out`);
      if (!lines.length) notes.push("None of these runs has logged it.");
      this.note(key, notes.join("; "));
      const now = figure.querySelector(".now");
      const ends = lines.length === 1 ? lines[0].ys.filter((y) => y !== null) : [];
      now.textContent = ends.length ? ink.shown(ends.at(-1)) : "";
    }
    // The mean of each group's runs, with the least and greatest of them as a band.
    means(lines) {
      const every = [...new Set(lines.flatMap((line) => line.xs))].sort((a, b) => a - b);
      const width = every.length > BINS ? (every.at(-1) - every[0]) / BINS : 0;
      const place = (x) => (width ? every[0] + (Math.min(BINS - 1, Math.floor((x - every[0]) / width)) + 0.5) * width : x);
      const groups = new Map();
      for (const line of lines) {
        const name = this.groupOf(line.id);
        if (!groups.has(name)) groups.set(name, { colour: line.colour, runs: 0, bins: new Map() });
        const group = groups.get(name);
        group.runs += 1;
        line.xs.forEach((x, at) => {
          const y = line.ys[at];
          if (y === null) return;
          const bin = group.bins.get(place(x)) ?? { sum: 0, count: 0, low: y, high: y };
          group.bins.set(place(x), { sum: bin.sum + y, count: bin.count + 1, low: Math.min(bin.low, y), high: Math.max(bin.high, y) });
        });
      }
      return [...groups].map(([name, group]) => {
        const bins = [...group.bins].sort(([a], [b]) => a - b);
        const column = (take) => bins.map(([, bin]) => take(bin));
        return {
          id: `group:${name}`, name: `mean of ${group.runs}, ${name}`, colour: group.colour, xs: bins.map(([x]) => x),
          ys: column((bin) => bin.sum / bin.count), low: column((bin) => bin.low), high: column((bin) => bin.high),
        };
      });
    }
    groupOf(id) {
      return this.runs.find((run) => run.id === id)?.group ?? "";
    }
    note(key, words) {
      const note = this.charts.get(key).querySelector("[data-note]");
      note.hidden = !words;
      note.textContent = words;
    }

    // --- linked charts, list and table ----------------------------------------------------------------------------------

    listen() {
      this.listening = new AbortController();
      const on = (target, kind, act) => target.addEventListener(kind, act, { signal: this.listening.signal });
      on(this, "marked", (event) => this.mark(event.detail, event.target));
      on(this, "opened", (event) => this.openRun(event.detail));
      on(this, "zoomed", (event) => {
        this.zoom = event.detail;
        for (const figure of this.charts.values()) figure.querySelector("run-chart").zoomTo(this.zoom);
      });
      on(this.holder, "input", (event) => event.target.matches("[data-setting]") && (event.stopPropagation(), this.set(event.target)));
      on(this.holder, "change", (event) => event.target.matches("[data-setting]") && event.stopPropagation());
      on(this.holder, "pointerover", (event) => {
        const row = event.target.closest("[data-run]");
        if (row && this.colours.has(row.dataset.run)) this.mark(row.dataset.run, row);
        else if (!this.contains(event.target)) this.mark(null, null);
      });
      on(this.holder, "focusin", (event) => event.target.closest("[data-run]") && this.mark(event.target.closest("[data-run]").dataset.run, event.target));
      on(this.holder, "click", (event) => {
        const hide = event.target.closest("[data-hide]");
        const widen = event.target.closest("[data-widen]");
        if (hide) this.toggleRun(hide.closest("[data-run]").dataset.run, event.shiftKey || event.altKey);
        if (widen) {
          const wide = widen.closest("figure").classList.toggle("wide");
          widen.setAttribute("aria-pressed", String(wide));
        }
      });
    }
    mark(id, from) {
      if (this.marked === id) return;
      this.marked = id;
      const ofGroup = this.settings.mean && id !== null && !id.startsWith("group:") ? `group:${this.groupOf(id)}` : id;
      for (const figure of this.charts.values()) {
        const chart = figure.querySelector("run-chart");
        if (chart !== from) chart.highlight(ofGroup);
      }
      for (const row of this.holder.querySelectorAll("[data-run]")) {
        const on = row.dataset.run === id || (id !== null && id === `group:${this.groupOf(row.dataset.run)}`);
        row.classList.toggle("marked", on);
        if (on && from?.localName === "run-chart") this.reveal(row);
      }
    }
    // The list scrolls to the row; the page itself stays where it is under the pointer.
    reveal(row) {
      const list = row.closest(".run-list ol");
      if (!list) return;
      const [box, outer] = [row.getBoundingClientRect(), list.getBoundingClientRect()];
      if (box.top < outer.top) list.scrollTop -= outer.top - box.top + 4;
      else if (box.bottom > outer.bottom) list.scrollTop += box.bottom - outer.bottom + 4;
    }
    toggleRun(id, only) {
      if (only) {
        const alone = this.hidden_runs.size === this.runs.length - 1 && !this.hidden_runs.has(id);
        this.hidden_runs = new Set(alone ? [] : this.runs.map((run) => run.id).filter((one) => one !== id));
      } else this.hidden_runs.has(id) ? this.hidden_runs.delete(id) : this.hidden_runs.add(id);
      this.writeAddress();
      this.colourRuns();
      this.redraw();
    }
    openRun(id) {
      const link = this.holder.querySelector(`[data-run="${id}"] a[href*="/runs/"]`);
      if (link) link.click();
    }
  }
  customElements.define("chart-board", ChartBoard);
})();
