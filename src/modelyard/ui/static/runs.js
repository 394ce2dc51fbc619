// The page of runs: an address without empty parts, errors in place, menus of columns and groups, chosen runs.
(() => {
  "use strict";
  const form = document.getElementById("query");
  const all = (css, within = document) => [...within.querySelectorAll(css)];

  // --- filter ---------------------------------------------------------------------------------------------------------

  document.addEventListener("htmx:configRequest", (event) => {
    if (event.detail.elt !== form) return;
    const sent = event.detail.parameters;
    for (const [name, value] of [...sent.entries()]) if (value === "") sent.delete(name);
    // The columns are named in the address only once somebody has chosen some.
    if (!form.hasAttribute("data-columns-chosen")) sent.delete("column");
    else if (!sent.has("column")) sent.append("column", "none");
  });
  if (new URLSearchParams(location.search).has("column")) form.setAttribute("data-columns-chosen", "");

  // While a filter is being typed it is often wrong: what is wrong is said above the runs found last, which stay.
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.target.id !== "results") return;
    const page = new DOMParser().parseFromString(event.detail.serverResponse, "text/html");
    const found = page.querySelector("[data-problem]");
    const shown = document.getElementById("problem");
    shown.replaceChildren(...(found ? [found] : []));
    document.getElementById("filter").setAttribute("aria-invalid", String(Boolean(found)));
    document.getElementById("results").classList.toggle("stale", Boolean(found));
    if (found) event.detail.shouldSwap = false;
  });

  // --- columns and groups ----------------------------------------------------------------------------------------------

  const changed = () => form.dispatchEvent(new Event("change", { bubbles: true }));

  let asked = 0;
  document.addEventListener("input", (event) => {
    const box = event.target;
    if (!box.matches("[data-find-keys]")) return;
    event.stopPropagation();
    clearTimeout(asked);
    asked = setTimeout(() => findKeys(box), 200);
  });
  async function findKeys(box) {
    const query = new URLSearchParams({ find: box.value, experiment: box.dataset.experiment });
    const taken = box.dataset.into === "more-keys" ? all("[data-shown-keys] input") : all("[data-group]:checked");
    for (const one of taken) query.append("column", one.dataset.group ?? one.value);
    const reply = await fetch(`${box.dataset.findKeys}&${query}`);
    const page = new DOMParser().parseFromString(await reply.text(), "text/html");
    const found = page.getElementById(box.dataset.into);
    if (found) document.getElementById(box.dataset.into).replaceWith(found);
  }

  function chooseKey(box) {
    form.setAttribute("data-columns-chosen", "");
    const holder = box.checked ? document.querySelector("[data-shown-keys]") : document.getElementById("more-keys");
    const label = box.closest("label");
    if (label.parentElement === holder) return;
    box.checked ? holder.append(label) : holder.prepend(label);
  }

  function chooseGroups() {
    const address = new URL(location.href);
    for (const name of ["group", "open", "page", "order"]) address.searchParams.delete(name);
    for (const box of all("[data-group]:checked").slice(0, 3)) address.searchParams.append("group", box.dataset.group);
    location.assign(address);
  }

  document.addEventListener("change", (event) => {
    const target = event.target;
    // What is typed was sent as it was typed; leaving the field sends it no second time.
    if (target.matches("input[type=search]")) event.stopPropagation();
    else if (target.matches("input[name=column]")) chooseKey(target);
    else if (target.matches("[data-group]")) {
      event.stopPropagation();
      // Several can be ticked before the menu closes, which is when they count.
      target.closest("details").toggleAttribute("data-changed", true);
    } else if (target.matches("select[data-size]")) location.assign(target.value);
  }, true);
  document.addEventListener("toggle", (event) => {
    if (event.target.matches?.("[data-menu-of=group][data-changed]") && !event.target.open) chooseGroups();
  }, true);
  document.addEventListener("click", (event) => {
    const move = event.target.closest("[data-move]");
    if (move) {
      event.preventDefault();
      const label = move.closest("label");
      const other = move.dataset.move === "up" ? label.previousElementSibling : label.nextElementSibling;
      if (other) {
        move.dataset.move === "up" ? other.before(label) : other.after(label);
        form.setAttribute("data-columns-chosen", "");
        move.focus();
        changed();
      }
    }
    for (const open of all("details.picker[open]")) if (!open.contains(event.target)) open.open = false;
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const open of all("details.picker[open]")) {
      open.open = false;
      open.querySelector("summary").focus();
    }
  });

  // --- metrics to draw --------------------------------------------------------------------------------------------------

  document.addEventListener("input", (event) => {
    if (!event.target.matches("[data-metric-find]")) return;
    event.stopPropagation();
    clearTimeout(asked);
    const value = event.target.value;
    asked = setTimeout(() => {
      const state = document.getElementById("state");
      let hidden = state.querySelector("input[name=metric]");
      if (!hidden) {
        hidden = Object.assign(document.createElement("input"), { type: "hidden", name: "metric" });
        state.append(hidden);
      }
      hidden.value = value;
      changed();
    }, 350);
  });
  // The field for metrics lies in what is swapped; whoever types there goes on typing.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const field = document.activeElement;
    if (event.detail.target.id !== "results" || !field?.matches("[data-metric-find]")) return;
    const { value, selectionStart } = field;
    document.addEventListener("htmx:afterSettle", () => {
      const again = document.querySelector("[data-metric-find]");
      if (!again) return;
      again.value = value;
      again.focus();
      again.setSelectionRange(selectionStart, selectionStart);
    }, { once: true });
  });

  // --- chosen runs ------------------------------------------------------------------------------------------------------

  const chosen = new Set();
  let last = null;
  function reflect() {
    for (const box of all("input[data-choose]")) {
      box.checked = chosen.has(box.value);
      box.closest("tr").setAttribute("aria-selected", String(box.checked));
    }
    const boxes = all("input[data-choose]");
    const whole = document.querySelector("[data-choose-all]");
    if (whole) {
      const on = boxes.filter((box) => box.checked).length;
      whole.checked = on > 0 && on === boxes.length;
      whole.indeterminate = on > 0 && on < boxes.length;
    }
    const bar = document.querySelector("[data-chosen]");
    bar.hidden = chosen.size === 0;
    bar.querySelector("[data-chosen-count]").textContent = `${chosen.size} chosen`;
    const link = bar.querySelector("[data-compare]");
    const fits = chosen.size >= 2 && chosen.size <= 24;
    link.setAttribute("aria-disabled", String(!fits));
    link.title = chosen.size > 24 ? "At most 24 runs fit side by side; the charts draw hundreds" : "";
    if (fits) link.href = `${link.dataset.compare}?runs=${[...chosen].join(",")}`;
    else link.removeAttribute("href");
    for (const field of all("form[data-act] input[name=runs]")) field.value = [...chosen].join(",");
  }
  document.addEventListener("click", (event) => {
    const box = event.target.closest("input[data-choose]");
    if (box) {
      const boxes = all("input[data-choose]");
      const at = boxes.indexOf(box);
      const from = event.shiftKey && last !== null ? Math.min(last, at) : at;
      const to = event.shiftKey && last !== null ? Math.max(last, at) : at;
      for (const one of boxes.slice(from, to + 1)) box.checked ? chosen.add(one.value) : chosen.delete(one.value);
      last = at;
      reflect();
    } else if (event.target.closest("[data-choose-all]")) {
      const on = event.target.closest("[data-choose-all]").checked;
      for (const one of all("input[data-choose]")) on ? chosen.add(one.value) : chosen.delete(one.value);
      reflect();
    } else if (event.target.closest("[data-choose-none]")) {
      chosen.clear();
      reflect();
    } else if (event.target.closest("[data-dismiss]")) event.target.closest(".toast").remove();
  });
  document.addEventListener("runs-changed", () => {
    chosen.clear();
    reflect();
  });
  document.addEventListener("htmx:afterSettle", reflect);
  document.addEventListener("htmx:responseError", (event) => {
    const toast = document.getElementById("toast");
    let words = "The server could not do that.";
    try {
      words = JSON.parse(event.detail.xhr.responseText).detail;
    } catch {
      // An answer that is no JSON has no better words.
    }
    const box = document.createElement("div");
    box.className = "toast bad";
    box.textContent = words;
    toast.replaceChildren(box);
  });
  reflect();
})();
