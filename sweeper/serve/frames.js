"use strict";
/* The report in a frame. A newer one is made ready behind it, with the same view, filter, selection, choices and
   place, and takes its turn when nobody is in the middle of something: nothing flickers and nothing is lost. */
const frames = (() => {
  const home = document.getElementById("frames");
  const READY_MS = 4000;
  const REST_MS = 1500;
  const changed = new Set();
  const zoomed = new Map();
  const watched = new WeakSet();
  let current = null;
  let loading = false;
  let asked = null;
  let touched = 0;
  let pressed = false;

  const wait = (ms) => new Promise((done) => setTimeout(done, ms));
  const until = async (holds, most) => {
    const end = Date.now() + most;
    while (!holds() && Date.now() < end) await wait(50);
  };

  /** Where an element is, by ids and places that another state of the report has, too. */
  const placeOf = (node) => {
    if (node.id) return `#${CSS.escape(node.id)}`;
    const root = node.parentElement.closest("[id]");
    const kind = node.tagName.toLowerCase() + (node.classList.contains("scroll") ? ".scroll" : "");
    return root && `#${CSS.escape(root.id)} ${kind}|${Array.from(root.querySelectorAll(kind)).indexOf(node)}`;
  };
  const at = (doc, place) => {
    const [query, index] = (place ?? "").split("|");
    return query ? doc.querySelectorAll(query)[Number(index ?? 0)] : undefined;
  };
  const pairs = (from, to, query) =>
    Array.from(from.querySelectorAll(query), (node) => [node, at(to, placeOf(node))]).filter(([, other]) => other);

  const set = (node, other) => {
    const name = node.type === "checkbox" || node.type === "radio" ? "checked" : "value";
    if (node[name] === other[name]) return;
    other[name] = node[name];
    for (const kind of ["input", "change"]) other.dispatchEvent(new Event(kind, { bubbles: true }));
  };

  /** Sorted columns, by the words of their heads. */
  const sort = (from, to) => {
    for (const [table, other] of pairs(from, to, "table")) {
      const head = table.querySelector("th[aria-sort]:not([aria-sort=none])");
      const same = () => head && Array.from(other.querySelectorAll("th[aria-sort]")).find((each) => each.textContent === head.textContent);
      for (let turn = 0; turn < 2 && same() && same().ariaSort !== head.ariaSort; turn += 1) same().querySelector("button")?.click();
    }
  };

  const carry = async (from, to) => {
    if (from.location.hash !== to.location.hash) {
      to.location.replace(from.location.hash || "#answer");
      await wait(50);
    }
    const [old, next] = [from.document, to.document];
    for (const place of changed) if (at(old, place) && at(next, place)) set(at(old, place), at(next, place));
    sort(old, next);
    const turned = Number(/page (\d+)/.exec(old.getElementById("page-place")?.textContent ?? "")?.[1] ?? 1);
    for (let turn = 1; turn < turned; turn += 1) next.getElementById("page-after")?.click();
    for (const [node, other] of pairs(old, next, "main details")) other.open = node.open;
    for (const [node, other] of pairs(old, next, ".scroll")) other.scrollTo(node.scrollLeft, node.scrollTop);
  };

  /** The axes that somebody zoomed, of figures that are drawn in both. */
  const zoom = async (from, to) => {
    for (const [plot, other] of pairs(from.document, to.document, ".js-plotly-plot")) {
      const axes = zoomed.get(placeOf(plot));
      if (axes && other.layout) await to.Plotly.relayout(other, axes);
    }
  };
  const watchZoom = (win) => {
    for (const plot of win.document.querySelectorAll(".js-plotly-plot")) {
      if (watched.has(plot) || typeof plot.on !== "function") continue;
      watched.add(plot);
      plot.on("plotly_relayout", (change) => {
        const before = zoomed.get(placeOf(plot)) ?? {};
        const axes = Object.entries(change).filter(([name]) => /^[xy]axis\d*\.(range|autorange)/.test(name));
        if (axes.some(([name]) => name.endsWith("autorange"))) zoomed.delete(placeOf(plot));
        else if (axes.length) zoomed.set(placeOf(plot), { ...before, ...Object.fromEntries(axes) });
      });
    }
  };

  /** Figures in the window are drawn. */
  const drawn = (win) => Array.from(win.document.querySelectorAll("[aria-busy=true]")).every((node) => {
    const box = node.getBoundingClientRect();
    return box.width === 0 || box.bottom < 0 || box.top > win.innerHeight;
  });

  /** Nobody types, drags, selects text, or reads what lies over the page. */
  const resting = () => {
    const { document: doc } = current.contentWindow;
    return !pressed && Date.now() - touched > REST_MS && String(doc.getSelection()) === "" && doc.querySelector("dialog[open]") === null;
  };

  const watch = (win) => {
    const touch = () => { touched = Date.now(); };
    // What somebody chose stays; what nobody touched follows the report.
    win.addEventListener("change", ({ isTrusted, target }) => isTrusted && changed.add(placeOf(target)));
    win.addEventListener("input", ({ isTrusted, target }) => isTrusted && changed.add(placeOf(target)));
    for (const kind of ["keydown", "input", "wheel", "touchmove"]) win.addEventListener(kind, touch, { passive: true });
    for (const [kind, down] of [["pointerdown", true], ["pointerup", false], ["pointercancel", false]]) {
      win.addEventListener(kind, () => { pressed = down; touch(); });
    }
  };

  const focus = (from, to) => {
    const node = from.document.activeElement;
    const other = node && node !== from.document.body && document.activeElement === current ? at(to.document, placeOf(node)) : null;
    if (!other) return;
    to.focus();
    other.focus({ preventScroll: true });
    if (typeof node.selectionStart === "number") other.setSelectionRange(node.selectionStart, node.selectionEnd);
  };

  const opened = (hash) => new Promise((done) => {
    const frame = document.createElement("iframe");
    frame.title = "report";
    frame.className = "next";
    frame.addEventListener("load", () => done(frame), { once: true });
    frame.src = `report${hash}`;
    home.append(frame);
  });

  const markOf = (frame) => frame?.contentDocument?.querySelector("meta[name=report-version]") ?? null;

  const renew = async () => {
    const frame = await opened(current === null ? location.hash : current.contentWindow.location.hash);
    const win = frame.contentWindow;
    const mark = markOf(frame);
    if (mark && mark.content !== asked) asked = null; // An older one came: ask again.
    if (current !== null && markOf(frame) === null && markOf(current) !== null) return frame.remove();
    if (current !== null) {
      await carry(current.contentWindow, win);
      win.scrollTo({ top: current.contentWindow.scrollY, behavior: "instant" });
      await until(() => drawn(win), READY_MS);
      await zoom(current.contentWindow, win);
      await until(resting, Infinity);
      await carry(current.contentWindow, win);
      win.scrollTo({ top: current.contentWindow.scrollY, behavior: "instant" });
      focus(current.contentWindow, win);
    }
    watch(win);
    frame.classList.remove("next");
    current?.remove();
    current = frame;
    return undefined;
  };

  // The address of the page says what its report shows.
  setInterval(() => {
    const hash = current?.contentWindow?.location.hash;
    if (current) watchZoom(current.contentWindow);
    if (hash && hash !== location.hash) history.replaceState(null, "", hash);
  }, 300);
  addEventListener("hashchange", () => {
    if (current && current.contentWindow.location.hash !== location.hash) current.contentWindow.location.replace(location.hash);
  });

  return {
    /** The version and the records of the report that is shown; null where there is none. */
    shown: () => markOf(current)?.content ?? null,
    records: () => Number(markOf(current)?.dataset.records ?? NaN),
    /** Bring in the report of this version, unless one is coming or this one could not be shown. */
    async renew(version) {
      if (loading || version === asked) return;
      loading = true;
      asked = version;
      try {
        await renew();
      } finally {
        loading = false;
      }
    },
  };
})();
