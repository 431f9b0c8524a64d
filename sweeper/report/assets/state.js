"use strict";
/* What the views of the page share: its data, the selected configurations, the tray. No view calls another. */
const page = (() => {
  const listeners = { selection: new Set(), tray: new Set() };
  const state = { selection: null, tray: new Set() };
  const limit = 4;
  const blocks = new Map();

  const tell = (name, source) => {
    for (const listener of listeners[name]) listener(state[name], source);
  };

  const isPacked = (block) => block.type === "application/gzip";
  const unpacked = (block) => {
    const bytes = Uint8Array.from(atob(block.textContent), (each) => each.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };

  /** Run plotly.js out of its block; a page whose plotly.js lies beside it has run it, or was moved without it. */
  const run = async () => {
    const block = document.getElementById("plotly-source");
    if (!window.Plotly && block !== null && "DecompressionStream" in window) {
      const script = document.createElement("script");
      script.textContent = await unpacked(block);
      document.head.append(script);
    }
    if (window.Plotly) return true;
    const needed = block === null ? "plotly.min.js beside the page" : "a browser of 2023 or later";
    for (const box of document.querySelectorAll(".figure")) {
      box.textContent = `This figure needs ${needed}; the tables do not.`;
    }
    return false;
  };
  let plotly = null;

  return {
    /** The parsed JSON block `NAME-data`; null where the page has none, or has it packed and not loaded. Parsed once. */
    data(name) {
      const block = document.getElementById(`${name}-data`);
      if (block !== null && !blocks.has(name) && !isPacked(block)) blocks.set(name, JSON.parse(block.textContent));
      return blocks.get(name) ?? null;
    },
    /** The same of a block that may be packed. */
    async load(name) {
      const block = document.getElementById(`${name}-data`);
      if (block !== null && !blocks.has(name) && isPacked(block)) blocks.set(name, JSON.parse(await unpacked(block)));
      return this.data(name);
    },
    /** Whether there is plotly.js, once that is known; where there is none, the figures say so. */
    plotly: () => (plotly ??= run()),
    /** Ids of the selected configurations; null where there is no selection, empty where one holds none. */
    selection: () => state.selection,
    /** Select these ids everywhere, or with null let go. `source` names the view that asked. */
    select(ids, source) {
      state.selection = ids === null ? null : new Set(ids);
      tell("selection", source);
    },
    onSelection: (listener) => listeners.selection.add(listener),
    /** Ids in the compare tray, in the order they were put there; at most four. */
    tray: () => state.tray,
    limit,
    /** Put a configuration into the tray, or take it out; false where the tray is full. */
    toggle(id, source) {
      if (state.tray.has(id)) state.tray.delete(id);
      else if (state.tray.size >= limit) return false;
      else state.tray.add(id);
      tell("tray", source);
      return true;
    },
    onTray: (listener) => listeners.tray.add(listener),
    /** The run folder's name, as a shell reads it. */
    quotedRun() {
      const { run } = this.data("configurations");
      return /^[\w./-]+$/.test(run) ? run : `'${run.replaceAll("'", `'\\''`)}'`;
    },
    /** A button that copies a text. */
    copyButton(text, label) {
      const button = this.make("button", { type: "button", class: "copy", "aria-label": label }, "copy");
      button.addEventListener("click", async () => {
        try {
          await navigator.clipboard.writeText(text);
          button.textContent = "copied";
        } catch {
          button.textContent = "select and copy it";
        }
      });
      return button;
    },
    /** An element with attributes and children; texts become text nodes and nothing else. */
    make(tag, attributes = {}, ...children) {
      const node = document.createElement(tag);
      for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
      node.append(...children);
      return node;
    },
  };
})();
