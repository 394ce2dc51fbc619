// What a page does beyond links and forms. Everything here is an addition: without it, pages still read and submit.
(() => {
  "use strict";
  const root = document.documentElement;

  const dark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;

  function toggleTheme() {
    root.dataset.theme = dark() ? "light" : "dark";
    localStorage.setItem("theme", root.dataset.theme);
    document.dispatchEvent(new CustomEvent("theme"));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () =>
    document.dispatchEvent(new CustomEvent("theme")),
  );

  async function signOut() {
    await fetch("/api/sign-out", { method: "POST" });
    location.assign("/sign-in");
  }

  async function copy(element) {
    try {
      await navigator.clipboard.writeText(element.dataset.copy);
    } catch {
      // Without a secure context there is no clipboard; the old way still works there.
      const area = document.createElement("textarea");
      area.value = element.dataset.copy;
      area.className = "sr-only";
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    element.dataset.copied = "";
    setTimeout(() => delete element.dataset.copied, 1200);
  }

  document.addEventListener("click", (event) => {
    const target = event.target.closest("[data-copy], [data-theme-toggle], [data-sign-out], [data-menu], [data-open], [data-close]");
    if (!target) return;
    if (target.hasAttribute("data-copy")) copy(target);
    else if (target.hasAttribute("data-theme-toggle")) toggleTheme();
    else if (target.hasAttribute("data-sign-out")) signOut();
    else if (target.hasAttribute("data-menu")) {
      const open = target.closest(".side").toggleAttribute("data-open");
      target.setAttribute("aria-expanded", String(open));
    } else if (target.dataset.open) document.getElementById(target.dataset.open)?.showModal();
    else if (target.hasAttribute("data-close")) target.closest("dialog")?.close();
  });

  document.addEventListener("change", (event) => {
    if (event.target.matches("select[data-go]")) location.href = event.target.value;
  });

  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.matches("input, textarea, select")) return;
    const search = document.querySelector("input[type=search]");
    if (search) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  });

  // A page that is read, written to or out of sight is not swapped under the reader's hands.
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (!event.detail.elt.hasAttribute("data-live")) return;
    const busy =
      document.hidden ||
      document.activeElement?.matches("input, textarea, select") ||
      document.querySelector("dialog[open], input[data-choose]:checked") ||
      String(getSelection()).length > 0;
    if (busy) event.preventDefault();
  });

  // Ages grow while a page stays open.
  const units = [[60, 1, "s"], [3600, 60, "min"], [86400, 3600, "h"], [5184000, 86400, "d"]];
  setInterval(() => {
    for (const element of document.querySelectorAll("time[data-age]")) {
      const seconds = (Date.now() - Date.parse(element.dateTime)) / 1000;
      const unit = units.find(([limit]) => seconds < limit);
      if (unit && seconds >= 10) element.textContent = `${Math.floor(seconds / unit[1])}\u202f${unit[2]} ago`;
    }
  }, 5000);

  // A graph wider than its frame begins with what was asked for in sight.
  function centreGraphs() {
    for (const frame of document.querySelectorAll(".graph")) {
      const focus = frame.querySelector(".focus .box");
      if (!focus || frame.scrollWidth <= frame.clientWidth) continue;
      const box = focus.getBoundingClientRect();
      const outer = frame.getBoundingClientRect();
      frame.scrollLeft += box.left + box.width / 2 - (outer.left + outer.width / 2);
    }
  }
  document.addEventListener("htmx:afterSettle", centreGraphs);

  centreGraphs();
})();
