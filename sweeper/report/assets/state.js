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

  return {
    /** The parsed JSON block `NAME-data`, or null where the page has none. Parsed once. */
    data(name) {
      const block = document.getElementById(`${name}-data`);
      if (block !== null && !blocks.has(name)) blocks.set(name, JSON.parse(block.textContent));
      return blocks.get(name) ?? null;
    },
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
