// MLflow's clients print addresses of MLflow's own pages (`/p/flights/#/experiments/1/runs/…`): here they lead to ours.
(() => {
  "use strict";
  const project = location.pathname.match(/^(\/p\/[^/]+)?\/?$/);
  if (!project || !location.hash.startsWith("#/")) return;
  const parts = location.hash.slice(2).split("?")[0].split("/");
  const place = {
    experiments: () => (parts[2] === "runs" && parts[3] ? `/runs/${parts[3]}` : `/runs?experiment=${parts[1]}`),
    models: () => `/models/${parts[1]}` + (parts[2] === "versions" && parts[3] ? `/versions/${parts[3]}` : ""),
  }[parts[0]];
  if (place && parts[1]) location.replace((project[1] || "") + place());
})();
