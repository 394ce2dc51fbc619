// Colours and numbers as canvases need them, for all that is drawn here.
"use strict";
const ink = (() => {
  // From low to high, told apart in grey too; the first row for light pages, the second for dark ones.
  const RAMPS = [
    [[45, 62, 168], [112, 64, 178], [176, 62, 140], [222, 98, 84], [214, 150, 30]],
    [[122, 150, 255], [172, 138, 250], [232, 130, 190], [250, 154, 122], [240, 206, 96]],
  ];
  // A canvas needs a plain colour; a computed `color` resolves variables and light-dark().
  function of(element, name) {
    const before = element.style.color;
    element.style.color = `var(${name})`;
    const value = getComputedStyle(element).color;
    element.style.color = before;
    return value;
  }
  const dark = (element) => Number(of(element, "--text").match(/\d+/)[0]) > 128;
  function ramp(unit, onDark) {
    const stops = RAMPS[onDark ? 1 : 0];
    const at = Math.min(Math.max(unit, 0), 1) * (stops.length - 1);
    const [low, high] = [stops[Math.floor(at)], stops[Math.min(Math.floor(at) + 1, stops.length - 1)]];
    return `rgb(${low.map((part, place) => Math.round(part + (high[place] - part) * (at % 1))).join(" ")})`;
  }
  function shown(value, digits = 4) {
    if (value === null || value === undefined || Number.isNaN(value)) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e6 || size < 1e-4) return value.toExponential(digits > 3 ? 2 : 1);
    if (size >= 1000) return value.toLocaleString("en-US", { maximumFractionDigits: size >= 1e4 ? 0 : 1 });
    return String(Number(value.toPrecision(digits)));
  }
  return { of, dark, ramp, shown };
})();
