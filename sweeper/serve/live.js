"use strict";
// Asks how far the run is. Everything from data is set as text, never as markup.
(() => {
  const EVERY = 2000;
  const AUTO_EVERY = 15000;
  const panel = document.getElementById("live");
  const part = (name) => document.getElementById(`live-${name}`);
  const shown = Number(panel.dataset.records);
  const opened = Date.now();
  const keep = `sweeper:${location.pathname}`;

  const stored = (name) => sessionStorage.getItem(`${keep}:${name}`);
  const store = (name, value) => sessionStorage.setItem(`${keep}:${name}`, value);

  const element = (tag, text, attributes = {}) => {
    const made = document.createElement(tag);
    made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  };

  const table = (heads, rows) => {
    const made = document.createElement("table");
    const head = made.createTHead().insertRow();
    heads.forEach((text) => head.append(element("th", text, { scope: "col" })));
    const body = made.createTBody();
    for (const cells of rows) {
      const row = body.insertRow();
      for (const cell of cells) row.insertCell().append(cell);
    }
    return made;
  };

  const curve = (values) => {
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    svg.setAttribute("viewBox", "0 0 120 28");
    svg.setAttribute("class", "live-curve");
    svg.setAttribute("role", "img");
    if (values.length < 2) return svg;
    const low = Math.min(...values);
    const span = Math.max(...values) - low || 1;
    const points = values.map((value, i) =>
      `${(2 + (116 * i) / (values.length - 1)).toFixed(1)},${(26 - (24 * (value - low)) / span).toFixed(1)}`);
    const line = document.createElementNS(space, "polyline");
    line.setAttribute("points", points.join(" "));
    svg.setAttribute("aria-label", `training loss from ${values[0].toFixed(3)} to ${values.at(-1).toFixed(3)}`);
    svg.append(line);
    return svg;
  };

  const age = (seconds) =>
    seconds < 100 ? `${seconds.toFixed(0)} s ago` : seconds < 5400 ? `${(seconds / 60).toFixed(0)} min ago`
      : `${(seconds / 3600).toFixed(1)} h ago`;

  const number = (value) => (value === null || value === undefined ? "" : value.toPrecision(4));

  const reload = () => {
    store("scroll", String(scrollY));
    location.reload();
  };

  const show = (data) => {
    part("state").textContent = data.state;
    part("state").dataset.state = data.state;
    const planned = data.planned ? ` of ${Math.max(data.planned, data.records)}` : "";
    const ends = Object.entries(data.statuses).map(([name, count]) => `${count} ${name}`).join(", ");
    part("count").textContent = `${data.records}${planned} records${ends ? ` (${ends})` : ""}`;
    part("bar").value = data.planned ? Math.min(1, data.records / data.planned) : 0;
    part("front").textContent = `${data.front} configurations on the front; ` +
      (data.recommended ? `currently recommended: ${data.recommended}` : "none can be recommended yet");

    const more = data.records - shown;
    const button = part("reload");
    button.hidden = more === 0;
    button.textContent = more > 0 ? `${more} new record${more === 1 ? "" : "s"}: reload` : "the records changed: reload";

    const at = data.trajectories.map((item) => [
      item.trajectory_id,
      item.stage + (item.quiet ? " (silent)" : ""),
      `${item.step} of ${item.steps}`,
      number(item.loss),
      curve(item.curve),
      age(item.age_seconds),
    ]);
    const others = data.more_trajectories ? [element("p", `and ${data.more_trajectories} more`)] : [];
    part("trajectories").replaceChildren(
      ...(at.length ? [table(["trajectory", "stage", "step", "loss", "training loss", "last sign"], at)] : [
        element("p", "No trajectory is running.")]), ...others);

    const names = [...new Set(data.latest.flatMap((item) => Object.keys(item.metrics)))];
    const rows = data.latest.map((item) => [
      item.config_id, String(item.seed), item.role, item.status, item.values,
      ...names.map((name) => number(item.metrics[name])),
    ]);
    part("latest").replaceChildren(
      ...(rows.length ? [table(["latest record", "seed", "role", "status", "hyperparameters", ...names], rows)] : []));
    part("failures").replaceChildren(
      ...data.failures.map((item) => element("li", `${item.count} failed: ${item.reason}`)));

    if (part("auto").checked && more !== 0 && Date.now() - opened > AUTO_EVERY) reload();
  };

  const ask = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch("live.json", { cache: "no-store" });
        const data = await answer.json();
        if (answer.ok) show(data);
        else part("count").textContent = data.problem;
      } catch {
        part("state").textContent = "no answer";
        part("state").dataset.state = "gone";
        part("count").textContent = "the server does not answer; the report below is not updated";
      }
    }
    setTimeout(ask, EVERY);
  };

  part("reload").addEventListener("click", reload);
  part("auto").checked = stored("auto") === "yes";
  part("auto").addEventListener("change", (event) => store("auto", event.target.checked ? "yes" : "no"));
  part("details").open = stored("details") === "open";
  part("details").addEventListener("toggle", (event) => store("details", event.target.open ? "open" : "closed"));
  const scroll = stored("scroll");
  if (scroll !== null) {
    sessionStorage.removeItem(`${keep}:scroll`);
    addEventListener("load", () => scrollTo({ top: Number(scroll), behavior: "instant" }));
  }
  ask();
})();
