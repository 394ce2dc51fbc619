// <line-chart data-chart='{…}'>: a Chart (see ui/series.py) drawn by uPlot, in the page's colours, light or dark.
(() => {
  "use strict";
  const HEIGHT = 190;

  // A canvas needs plain colours; a computed `color` resolves variables and light-dark().
  function colour(name) {
    const probe = document.createElement("span");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const value = getComputedStyle(probe).color;
    probe.remove();
    return value;
  }

  function shown(value) {
    if (value === null || value === undefined) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e6 || size < 1e-4) return value.toExponential(2);
    if (size >= 1000) return value.toLocaleString("en-US", { maximumFractionDigits: 0 });
    return String(Number(value.toPrecision(4)));
  }

  // The time of a tick in UTC: the day where a day begins, else hours and minutes.
  function clock(seconds, step) {
    const at = new Date(seconds * 1e3);
    const day = at.toLocaleDateString("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });
    if (step >= 86400 || seconds % 86400 === 0) return day;
    return at.toISOString().slice(11, step < 60 ? 19 : 16);
  }

  // Series have xs of their own; uPlot wants one x axis with gaps where a series has no point.
  function aligned(chart) {
    const band = chart.band;
    const edges = band ? [{ xs: band.xs, ys: band.high }, { xs: band.xs, ys: band.low }] : [];
    const series = [...chart.series, ...edges];
    const xs = [...new Set(series.flatMap((one) => one.xs))].sort((a, b) => a - b);
    const place = new Map(xs.map((x, index) => [x, index]));
    const columns = series.map((one) => {
      const column = new Array(xs.length).fill(undefined);
      one.xs.forEach((x, index) => (column[place.get(x)] = one.ys[index]));
      return column;
    });
    return [xs, ...columns];
  }

  function threshold(chart) {
    return (plot) => {
      if (chart.threshold === null || chart.threshold === undefined) return;
      const y = Math.round(plot.valToPos(chart.threshold, "y", true)) + 0.5;
      const { left, width } = plot.bbox;
      const context = plot.ctx;
      context.save();
      context.strokeStyle = colour("--bad");
      context.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
      context.lineWidth = devicePixelRatio;
      context.beginPath();
      context.moveTo(left, y);
      context.lineTo(left + width, y);
      context.stroke();
      context.restore();
    };
  }

  function options(chart, element) {
    const few = Math.max(...chart.series.map((one) => one.xs.length)) <= 24;
    const axis = { stroke: colour("--text-3"), font: `11px ${getComputedStyle(document.body).fontFamily}`, ticks: { show: false } };
    const grid = { stroke: colour("--line"), width: 1 };
    const isWindow = chart.x === "window";
    const values = element.parentElement.querySelectorAll(".value");
    const bounds = (low, high) => {
      const limits = chart.threshold === null || chart.threshold === undefined ? [] : [chart.threshold];
      const least = Math.min(low, ...limits);
      const most = Math.max(high, ...limits);
      const room = (most - least || Math.abs(most) || 1) * 0.08;
      return [least >= 0 && least - room < 0 ? 0 : least - room, most + room];
    };
    return {
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1e3), "UTC"),
      width: element.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      cursor: { y: false, points: { size: 7 }, drag: { x: true, y: false }, sync: { key: chart.x } },
      scales: {
        x: { time: chart.x === "time", range: isWindow ? (_, low, high) => [low - 0.25, high + 0.25] : undefined },
        y: { range: (_, low, high) => bounds(low ?? 0, high ?? 1) },
      },
      axes: [
        {
          ...axis,
          grid: { show: false },
          size: 26,
          gap: 6,
          ...(isWindow && {
            splits: () => chart.ticks.map((_, index) => index),
            values: (_, at) => at.map((index) => chart.ticks[index] ?? ""),
          }),
          ...(chart.x === "time" && { values: (_, at, __, ___, step) => at.map((seconds) => clock(seconds, step)) }),
          ...(chart.x === "step" && { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 1e5, 1e6, 1e7] }),
        },
        { ...axis, grid, size: 52, gap: 6, values: (_, at) => at.map((value) => shown(value) + (chart.unit ? ` ${chart.unit}` : "")) },
      ],
      series: [
        {},
        ...chart.series.map((one, index) => ({
          label: one.name,
          stroke: colour(`--series-${(index % 8) + 1}`),
          width: 1.6,
          points: { show: few, size: 5, fill: colour("--bg-raised") },
          spanGaps: false,
        })),
        ...(chart.band ? [0, 1] : []).map(() => ({ stroke: "transparent", width: 0, points: { show: false } })),
      ],
      ...(chart.band && { bands: [{ series: [chart.series.length + 1, chart.series.length + 2], fill: colour("--band") }] }),
      hooks: {
        draw: [threshold(chart)],
        setCursor: [
          (plot) => {
            values.forEach((value, index) => {
              const column = plot.data[index + 1];
              let at = plot.cursor.idx ?? column.length - 1;
              while (plot.cursor.idx == null && at > 0 && column[at] == null) at -= 1;
              value.textContent = shown(column[at]);
            });
          },
        ],
      },
    };
  }

  class LineChart extends HTMLElement {
    connectedCallback() {
      this.chart = JSON.parse(this.dataset.chart);
      this.redraw = () => this.draw();
      document.addEventListener("theme", this.redraw);
      this.observer = new ResizeObserver(() => {
        if (this.plot && this.clientWidth && this.clientWidth !== this.plot.width)
          this.plot.setSize({ width: this.clientWidth, height: HEIGHT });
      });
      this.observer.observe(this);
      this.draw();
    }
    disconnectedCallback() {
      document.removeEventListener("theme", this.redraw);
      this.observer.disconnect();
      this.plot?.destroy();
    }
    draw() {
      this.plot?.destroy();
      if (!this.chart.series.some((one) => one.xs.length)) return;
      this.plot = new uPlot(options(this.chart, this), aligned(this.chart), this);
      this.plot.setCursor({ left: -10, top: -10 });
    }
  }
  customElements.define("line-chart", LineChart);
})();
