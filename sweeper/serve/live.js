"use strict";
// Asks how far the run is. Everything from data is set as text, never as markup.
(() => {
  const EVERY = 2000;
  const part = (name) => document.getElementById(`live-${name}`);
  const { name, token, states } = document.body.dataset;
  const words = JSON.parse(states);
  const keep = `sweeper:${location.pathname}`;
  const logs = new Map();
  const stops = new Map();
  let acted = "";
  let noted = "";

  const element = (tag, attributes = {}, ...children) => {
    const made = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };

  const table = (heads, rows) => {
    const head = element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text)));
    const body = rows.map((cells) => element("tr", {}, ...cells.map((cell, index) => element("td", { "data-label": heads[index] }, cell))));
    return element("table", { class: "cards" }, element("thead", {}, head), element("tbody", {}, ...body));
  };

  const curve = (values) => {
    const space = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(space, "svg");
    if (values.length < 2) return svg;
    const low = Math.min(...values);
    const span = Math.max(...values) - low || 1;
    const points = values.map((value, i) =>
      `${(2 + (116 * i) / (values.length - 1)).toFixed(1)},${(26 - (24 * (value - low)) / span).toFixed(1)}`);
    const line = document.createElementNS(space, "polyline");
    line.setAttribute("points", points.join(" "));
    for (const [key, value] of Object.entries({ viewBox: "0 0 120 28", class: "live-curve", role: "img" })) svg.setAttribute(key, value);
    svg.setAttribute("aria-label", `training loss from ${values[0].toFixed(3)} to ${values.at(-1).toFixed(3)}`);
    svg.append(line);
    return svg;
  };

  const age = (seconds) =>
    seconds < 100 ? `${seconds.toFixed(0)} s ago` : seconds < 5400 ? `${(seconds / 60).toFixed(0)} min ago`
      : `${(seconds / 3600).toFixed(1)} h ago`;
  const number = (value) => (value === null || value === undefined ? "" : value.toPrecision(4));
  const count = (value) => (value === null ? "" : Math.round(value).toLocaleString("en"));

  /** A button is made once, so that a click is never lost to a new table. */
  const stopButton = ({ trajectory_id: id, name: settings }) => {
    if (!stops.has(id)) {
      const button = element("button", { type: "button", "aria-label": `Stop ${settings}` }, "Stop");
      button.addEventListener("click", () => act(`stop/${id}`, "Stop", button, "Stop this path for good?",
        `${settings}: its configurations without a record become pruned, are never recommended, and are not trained again. The rest of the sweep goes on.`));
      stops.set(id, button);
    }
    return stops.get(id);
  };

  const showWorkers = ({ workers, more_workers: more }) => {
    const rows = workers.map((item) => [
      element("span", { title: item.trajectory_id }, item.name),
      item.stage + (item.quiet ? " (silent)" : ""),
      `${item.step} of ${item.steps}`,
      count(item.tokens_per_second),
      number(item.loss),
      curve(item.curve),
      age(item.age_seconds),
      ...(token ? [stopButton(item)] : []),
    ]);
    const heads = ["worker trains", "stage", "step", "tokens/s", "loss", "training loss", "last sign", ...(token ? ["stop"] : [])];
    const focused = document.activeElement;
    part("workers").replaceChildren(rows.length ? table(heads, rows) : element("p", {}, "No worker is running."),
      ...(more ? [element("p", {}, `and ${more} more`)] : []));
    if (focused !== document.activeElement && part("workers").contains(focused)) focused.focus();
  };

  const fill = async (trial, box) => {
    box.textContent = "asking ...";
    try {
      const answer = await fetch(`logs/${encodeURIComponent(trial)}`, { cache: "no-store" });
      box.textContent = answer.ok ? await answer.text() : "This trial has no log.";
    } catch {
      box.textContent = "The server does not answer.";
    }
  };

  /** A failure is made once, so that its log stays open. */
  const showFailures = ({ failures }) => {
    const made = failures.map(({ reason, trial, name: settings, count: times }) => {
      const key = `${trial}\n${reason}`;
      if (!logs.has(key)) {
        const box = element("pre", { tabindex: "0" });
        const details = element("details", {}, element("summary", {}), box);
        details.addEventListener("toggle", () => details.open && fill(trial, box));
        logs.set(key, details);
      }
      logs.get(key).firstChild.textContent = `${times} failed: ${reason} (the last: ${settings}; its log)`;
      return logs.get(key);
    });
    const box = part("failures");
    if (made.length !== box.children.length || made.some((node, index) => node !== box.children[index])) box.replaceChildren(...made);
  };

  const showLatest = ({ latest }) => {
    const names = [...new Set(latest.flatMap((item) => Object.keys(item.metrics)))];
    const rows = latest.map((item) => [
      element("span", { title: item.config_id }, item.values || item.config_id), String(item.seed), item.role, item.status,
      ...names.map((metric) => number(item.metrics[metric])),
    ]);
    part("latest").replaceChildren(...(rows.length ? [table(["latest record", "seed", "role", "status", ...names], rows)] : []));
  };

  const showControls = ({ state, note }) => {
    if (acted && acted !== state) {
      acted = "";
      say("");
    }
    if (note !== noted) {
      say(note);
      if (!note.startsWith("resuming")) acted = "";
    }
    noted = note;
    if (!token) return;
    const starting = note.startsWith("resuming");
    part("stop").hidden = state !== "running" || acted !== "";
    part("resume").hidden = state !== "stopped" || acted !== "" || starting;
  };

  const say = (text) => {
    part("note").hidden = text === "";
    part("note").textContent = text;
  };

  const show = (data) => {
    part("state").textContent = words[data.state] ?? data.state;
    part("state").dataset.state = data.state;
    const of = ({ records, planned }) => `${records}${planned ? ` of ${Math.max(planned, records)}` : ""} records`;
    const failed = data.statuses.failed ? `, ${data.statuses.failed} failed` : "";
    const decision = data.decision ? `; decision: ${of(data.decision)}` : "";
    part("count").textContent = `${of(data)}${failed}${decision}`;
    document.title = `${data.records}${data.planned ? `/${data.planned}` : ""} ${name}`;
    part("bar").value = data.planned ? Math.min(1, data.records / data.planned) : 0;
    part("left").textContent = data.left ?? (data.state === "running" ? "time left not known yet" : "");
    part("cost").textContent = `cost: ${data.cost}`;
    const behind = data.records - frames.records();
    part("behind").textContent = behind > 0 ? `the report is renewed soon: ${behind} record${behind === 1 ? "" : "s"} behind` : "";
    showWorkers(data);
    showFailures(data);
    showLatest(data);
    showControls(data);
    if (data.report.version !== frames.shown()) frames.renew(data.report.version);
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
        part("count").textContent = "the server has ended; `sweeper serve` shows the run again";
        part("left").textContent = "";
      }
    }
    setTimeout(ask, EVERY);
  };

  const act = (action, word, button, title, text) => {
    part("ask-title").textContent = title;
    part("ask-text").textContent = text;
    part("ask-yes").textContent = word;
    part("ask").returnValue = "";
    part("ask").onclose = async () => {
      if (part("ask").returnValue !== "yes") return;
      try {
        const answer = await fetch(action, { method: "POST", headers: { "X-Sweeper-Token": token } });
        const json = answer.headers.get("content-type")?.startsWith("application/json");
        const { said, problem } = json ? await answer.json() : { problem: await answer.text() };
        if (!action.includes("/")) acted = answer.ok ? part("state").dataset.state : "";
        say(said ?? problem);
        button.hidden = answer.ok;
      } catch {
        say("The server does not answer.");
      }
    };
    part("ask").showModal();
  };

  part("stop")?.addEventListener("click", () => act("stop", "Stop", part("stop"), "Stop this sweep?",
    "Like Ctrl-C in its terminal: finished results and checkpoints are kept, and it can be resumed."));
  part("resume")?.addEventListener("click", () => act("resume", "Resume", part("resume"), "Resume this sweep?",
    "It goes on from its checkpoints on the machine of this server, as with `sweeper resume`."));
  part("details").open = sessionStorage.getItem(keep) === "open";
  part("details").addEventListener("toggle", () => sessionStorage.setItem(keep, part("details").open ? "open" : "closed"));
  frames.renew("");
  ask();
})();
