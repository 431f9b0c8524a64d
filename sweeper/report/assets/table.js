/* The table of all configurations: pages of rows, made of text nodes alone. */
(() => {
  const { make } = page;
  const block = page.data("configurations");
  const { ids, marks, columns, run } = block;
  const at = (name) => document.getElementById(name);
  const body = at("all").tBodies[0];
  const SIZE = 100;

  const state = { order: ids.map((_, row) => row), shown: [], page: 0, column: -1, sign: 1 };
  const texts = new Array(ids.length);
  const collator = new Intl.Collator("en", { numeric: true });

  const cell = (row, index) => columns[index].cells[columns[index].at[row]];
  const wholeText = (row) => {
    texts[row] ??= columns.map((_, index) => cell(row, index)[0]).join("\n").toLowerCase();
    return texts[row];
  };

  const compare = (index) => (a, b) => {
    const [x, y] = [cell(a, index)[1], cell(b, index)[1]];
    // What was not measured stays at the end in both directions.
    if (x === null || y === null) return (x === null) - (y === null) || a - b;
    const way = typeof x === "number" && typeof y === "number" ? x - y : collator.compare(x, y);
    return state.sign * way || a - b;
  };

  const tags = { recommended: "★ ", front: "◆ ", "no gain": "∅ " };
  const slug = (mark) => mark.replaceAll(" ", "-");

  const rowOf = (row) => {
    const id = ids[row];
    const chosen = page.selection()?.has(id) ?? false;
    const line = make("tr", { class: marks[row].map(slug).join(" "), "data-row": row });
    line.classList.toggle("selected", chosen);
    columns.forEach((column, index) => {
      const [text, , detail] = cell(row, index);
      const box = make(index === 1 ? "th" : "td", index === 1 ? { scope: "row" } : {});
      if (column.numeric) box.className = "number";
      if (index === 0) {
        const inside = page.tray().has(id);
        const label = `compare ${id}`;
        box.append(make("button", { type: "button", class: "add", "aria-pressed": inside, "aria-label": label, title: label }, inside ? "✓" : "+"));
        for (const mark of marks[row]) box.append(" ", make("span", { class: `mark ${slug(mark)}` }, `${tags[mark] ?? ""}${mark}`));
      } else if (index === 1) {
        box.append(make("button", { type: "button", class: "pick", "aria-pressed": chosen, dir: "auto" }, text));
      } else {
        box.append(text);
        if (detail) box.append(" ", make("small", {}, detail));
      }
      line.append(box);
    });
    return line;
  };

  const pages = () => Math.max(1, Math.ceil(state.shown.length / SIZE));

  const draw = () => {
    state.page = Math.min(state.page, pages() - 1);
    const begin = state.page * SIZE;
    body.replaceChildren(...state.shown.slice(begin, begin + SIZE).map(rowOf));
    at("pager").hidden = pages() === 1;
    at("page-place").textContent = `page ${state.page + 1} of ${pages()}`;
    for (const name of ["page-first", "page-before"]) at(name).disabled = state.page === 0;
    for (const name of ["page-after", "page-last"]) at(name).disabled = state.page === pages() - 1;
    const selection = page.selection();
    const more = selection === null ? "" : `, ${selection.size} selected`;
    at("shown").textContent = `${state.shown.length} of ${ids.length}${more}`;
    at("none-shown").hidden = state.shown.length > 0;
    const why = at("only-selected").checked && selection?.size === 0 ? "The selection holds no configuration" : "No configuration passes";
    at("none-shown").textContent = `${why}, so no row is shown.`;
  };

  const filter = () => {
    const { tests, error } = filters.parse(at("filter").value, columns);
    at("filter-error").hidden = error === null;
    at("filter-error").textContent = error ?? "";
    at("filter").setAttribute("aria-invalid", error !== null);
    const selection = at("only-selected").checked ? page.selection() : null;
    state.shown = state.order.filter((row) => {
      if (selection !== null && !selection.has(ids[row])) return false;
      return tests.every((test) => test((index) => cell(row, index), () => wholeText(row)));
    });
    draw();
  };

  const sortBy = (index, head) => {
    state.sign = state.column === index ? -state.sign : 1;
    state.column = index;
    for (const other of head.parentNode.cells) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", state.sign === 1 ? "ascending" : "descending");
    state.order.sort(compare(index));
    state.page = 0;
    filter();
  };

  columns.forEach((column, index) => {
    const button = make("button", { type: "button" }, column.name);
    const head = make("th", { scope: "col", "aria-sort": "none" }, button);
    if (column.numeric) head.className = "number";
    button.addEventListener("click", () => sortBy(index, head));
    at("all").tHead.rows[0].append(head);
  });

  /* Numbers as they were recorded; an interval and counts are columns of their own. */
  const heads = () =>
    columns.flatMap(({ name, numeric, cells }) => {
      const wide = numeric && cells.some((found) => found.length > 3);
      return wide ? [name, `${name} 95% low`, `${name} 95% high`, `${name} counts`] : [name];
    });
  const record = (row) =>
    columns.flatMap(({ numeric, cells }, index) => {
      const [text, value, , low = null, high = null, counts = ""] = cell(row, index);
      const wide = numeric && cells.some((found) => found.length > 3);
      const own = numeric && (typeof value === "number" || value === null) ? value : text;
      return wide ? [own, low, high, counts] : [own];
    });
  const download = (name, rows) => csv.save(`${run}-${name}.csv`, csv.text(heads(), rows.map(record)));
  at("csv-all").addEventListener("click", () => download("configurations", ids.map((_, row) => row)));
  at("csv-shown").addEventListener("click", () => download("configurations-shown", state.shown));

  const focused = () => {
    const button = document.activeElement;
    const line = body.contains(button) ? button.closest("tr") : null;
    return line && { row: line.dataset.row, kind: button.className };
  };
  /** Draw anew, and leave the keyboard where it was. */
  const redraw = (change) => {
    const before = focused();
    change();
    if (before) body.querySelector(`tr[data-row="${before.row}"] .${before.kind}`)?.focus();
  };

  body.addEventListener("click", (event) => {
    const line = event.target.closest("tr");
    const id = ids[Number(line.dataset.row)];
    if (event.target.closest(".add")) {
      const tray = page.tray();
      if (!page.toggle(id, "table")) {
        at("filter-error").hidden = false;
        at("filter-error").textContent = `The comparison holds ${tray.size} already, the most it can.`;
      }
      return;
    }
    if (String(getSelection()) !== "" && !event.target.closest(".pick")) return;
    const selection = page.selection() ?? new Set();
    const more = event.shiftKey || event.ctrlKey || event.metaKey;
    const next = new Set(more ? selection : []);
    if (selection.has(id) && (more || selection.size === 1)) next.delete(id);
    else next.add(id);
    page.select(next.size ? next : null, "table");
  });
  body.addEventListener("keydown", (event) => {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
    const here = focused();
    const next = step && here && event.target.closest("tr")[step];
    if (!next) return;
    event.preventDefault();
    next.querySelector(`.${here.kind}`).focus();
  });

  at("filter").addEventListener("input", () => {
    state.page = 0;
    filter();
  });
  at("only-selected").addEventListener("change", filter);
  const turn = (place) => {
    state.page = Math.max(0, Math.min(place, pages() - 1));
    draw();
  };
  at("page-first").addEventListener("click", () => turn(0));
  at("page-before").addEventListener("click", () => turn(state.page - 1));
  at("page-after").addEventListener("click", () => turn(state.page + 1));
  at("page-last").addEventListener("click", () => turn(pages() - 1));

  page.onSelection((selection, source) => {
    // A row chosen here is marked where it is; what is chosen elsewhere is what is looked for.
    if (source !== "table") {
      at("only-selected").checked = selection !== null;
      state.page = 0;
    }
    redraw(filter);
  });
  page.onTray(() => redraw(draw));

  // On paper the table is its first rows.
  addEventListener("beforeprint", () => {
    const rest = state.shown.length - Math.min(SIZE, state.shown.length);
    const what = state.shown.length < ids.length ? "shown on the screen" : "of the sweep";
    at("printed").textContent =
      `Printed: the first ${Math.min(SIZE, state.shown.length)} of ${state.shown.length} configurations ${what}` +
      (rest > 0 ? "; the page itself and its CSV hold all." : ".");
    turn(0);
  });

  filter();
})();
