// <live-run data-url=…>: while a run goes on, its latest values and its log move in place, and its end reloads the page.
// <live-log data-url=… data-next=…>: what comes to a log is added at its end.
(() => {
  "use strict";
  const shown = (value) => {
    if (value === null || value === undefined) return "NaN";
    const size = Math.abs(value);
    if (size !== 0 && (size >= 1e6 || size < 1e-4)) return value.toExponential(3);
    return size >= 1000 ? value.toLocaleString("en-US", { maximumFractionDigits: 1 }) : value.toPrecision(4);
  };

  class Polling extends HTMLElement {
    connectedCallback() {
      this.pause = 2000;
      this.later();
    }
    disconnectedCallback() {
      clearTimeout(this.timer);
    }
    later() {
      this.timer = setTimeout(() => this.turn(), this.pause);
    }
    async turn() {
      if (!document.hidden) {
        const began = performance.now();
        try {
          const reply = await fetch(this.address());
          if (reply.ok && this.take(await reply.json()) === false) return;
          // A server that is slow is asked less often.
          this.pause = Math.min(30000, Math.max(2000, (performance.now() - began) * 10));
        } catch {
          this.pause = Math.min(30000, this.pause * 2);
        }
      }
      if (this.isConnected) this.later();
    }
  }

  class LiveRun extends Polling {
    address() {
      return this.dataset.url;
    }
    take(pulse) {
      for (const cell of document.querySelectorAll("[data-latest]")) {
        const metric = pulse.metrics[cell.dataset.latest];
        if (!metric) continue;
        const words = cell.dataset.part === "step" ? metric.step.toLocaleString("en-US") : shown(metric.value);
        if (cell.textContent !== words) {
          cell.textContent = words;
          cell.classList.remove("moved");
          requestAnimationFrame(() => cell.classList.add("moved"));
        }
      }
      const known = new Set([...document.querySelectorAll("[data-latest]")].map((cell) => cell.dataset.latest));
      const fresh = known.size > 0 && Object.keys(pulse.metrics).some((key) => !key.startsWith("system/") && !known.has(key));
      if (pulse.status === "RUNNING" && !fresh) return true;
      if (document.querySelector("dialog[open]") || document.activeElement?.matches("input, textarea")) return true;
      location.reload();
      return false;
    }
  }

  class LiveLog extends Polling {
    connectedCallback() {
      this.pre = this.querySelector("pre");
      this.pre.scrollTop = this.pre.scrollHeight;
      super.connectedCallback();
    }
    address() {
      return `${this.dataset.url}&after=${this.dataset.next}`;
    }
    take(part) {
      const low = this.pre.scrollHeight - this.pre.scrollTop - this.pre.clientHeight < 40;
      if (part.text) this.pre.append(part.text);
      this.dataset.next = part.next;
      if (low) this.pre.scrollTop = this.pre.scrollHeight;
      return !(part.ended && !part.text);
    }
  }
  customElements.define("live-run", LiveRun);
  customElements.define("live-log", LiveLog);
})();
