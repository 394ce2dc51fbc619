// Exchanges the one-time token for a session cookie. The token is taken out of the address bar before anything else.
(() => {
  "use strict";
  const form = document.querySelector("[data-signin]");
  const field = form.elements.token;
  const notice = form.querySelector(".notice");
  const address = new URL(location.href);
  const given = new URLSearchParams(address.hash.slice(1)).get("token") || address.searchParams.get("token");
  // An address of MLflow's pages goes on to the page that comes next.
  const there = address.hash.startsWith("#/") ? address.hash : "";
  if (given) {
    address.searchParams.delete("token");
    address.hash = "";
    history.replaceState(null, "", address);
    field.value = given;
  }

  async function signIn() {
    notice.hidden = true;
    const answer = await fetch(form.action, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token: field.value.trim() }),
    });
    if (answer.ok) {
      location.replace(form.dataset.next + there);
      return;
    }
    const problem = await answer.json();
    notice.querySelector("strong").textContent = problem.detail;
    notice.querySelector("p").textContent = problem.hint || "";
    notice.hidden = false;
    field.select();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    signIn();
  });
  if (given) signIn();
})();
