/* The table of all configurations: pages of rows, made of text nodes alone. */
(() => {
  const { make } = page;
  const block = page.data("configurations");
  const { ids, marks, columns, run } = block;
  const at = (name) => document.getElementById(name);
  const body = at("all").tBodies[0];
  const SIZE = 100;

  const state = { order: ids.map((_, row) => row), shown: [], page: 0, column: -1, sign: 1, error: null };
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

  /* The id, its marks and the button stand in one column that stays; the column of marks is for sorting. */
  const MARKS = 0;
  const NAME = 1;
  const visible = new Set(columns.flatMap(({ name }, index) => (block.hidden.includes(name) ? [] : [index])));
  const order = [NAME, MARKS, ...columns.map((_, index) => index).slice(2)];
  const inView = () => order.filter((index) => index === NAME || visible.has(index));

  const nameCell = (row, chosen) => {
    const id = ids[row];
    const inside = page.tray().has(id);
    const label = `compare ${id}`;
    const box = make("th", { scope: "row", class: "fixed" });
    box.append(make("button", { type: "button", class: "add", "aria-pressed": inside, "aria-label": label, title: label }, inside ? "✓" : "+"), " ");
    box.append(make("button", { type: "button", class: "pick", "aria-pressed": chosen, dir: "auto" }, cell(row, NAME)[0]));
    box.append(" ", make("button", { type: "button", class: "open", "data-config": id, "aria-label": `open ${id}`, title: `open ${id}` }, "…"));
    const tagged = marks[row].flatMap((mark) => [make("span", { class: `mark ${slug(mark)}` }, `${tags[mark] ?? ""}${mark}`), " "]);
    if (tagged.length) box.append(make("div", {}, ...tagged));
    return box;
  };

  const rowOf = (row) => {
    const chosen = page.selection()?.has(ids[row]) ?? false;
    const line = make("tr", { class: marks[row].map(slug).join(" "), "data-row": row });
    line.classList.toggle("selected", chosen);
    for (const index of inView()) {
      if (index === NAME) {
        line.append(nameCell(row, chosen));
        continue;
      }
      const [text, , detail] = cell(row, index);
      const box = make("td", { "data-name": columns[index].name });
      if (columns[index].numeric) box.className = "number";
      box.append(text);
      if (detail) box.append(" ", make("small", {}, detail));
      line.append(box);
    }
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
    const why = state.error !== null ? "The filter cannot be read"
      : at("only-selected").checked && selection?.size === 0 ? "The selection holds no configuration" : "No configuration passes";
    at("none-shown").textContent = `${why}, so no row is shown.`;
  };

  /** One chip for each condition; taking it away takes it out of the line. */
  const chips = (groups) => {
    const parts = groups.flatMap((terms, i) => [...(i ? [make("span", { class: "or" }, "or")] : []), ...terms.map((term) => {
      const remove = make("button", { type: "button", "aria-label": `take away ${term.text}` }, "×");
      remove.addEventListener("click", () => {
        const kept = groups.map((each) => each.filter((other) => other !== term).map((other) => other.part).join(" "));
        at("filter").value = kept.filter(Boolean).join(" or ");
        at("filter").dispatchEvent(new Event("input"));
        at("filter").focus();
      });
      return make("span", { class: "chip" }, term.text, " ", remove);
    })]);
    at("chips").replaceChildren(...parts);
  };

  /** What the last word of the line may go on to be: names of columns, and the values of those with few. */
  const suggest = () => {
    const [, before, last] = /^(.*?)([^\s]*)$/s.exec(at("filter").value);
    const [, name, sign] = /^([^<>=!]*)([<>=!]*)/.exec(last);
    const index = sign ? filters.columnOf(name, columns) : -1;
    const values = index < 0 || columns[index].cells.length > 30 ? [] : columns[index].cells.map(([text]) => text).filter(Boolean);
    const quoted = (text) => (/\s/.test(text) ? `"${text}"` : text);
    const ends = sign ? values.map((text) => `${name}${sign}${quoted(text)}`)
      : [...columns.map((column) => column.name), ...Object.keys(filters.aliases).filter((each) => filters.columnOf(each, columns) >= 0)]
        .filter((each) => !/\s/.test(each) && each.startsWith(last)).map((each) => `${each}=`);
    at("filter-names").replaceChildren(...ends.map((end) => make("option", { value: before + end })));
  };

  const filter = () => {
    const { groups, error } = filters.parse(at("filter").value, columns);
    state.error = error;
    at("filter-error").hidden = error === null;
    at("filter-error").textContent = error ?? "";
    at("filter").setAttribute("aria-invalid", error !== null);
    chips(groups);
    const selection = at("only-selected").checked ? page.selection() : null;
    state.shown = state.order.filter((row) => {
      if (error !== null || (selection !== null && !selection.has(ids[row]))) return false;
      const holds = ({ test }) => test((index) => cell(row, index), () => wholeText(row));
      return groups.some((terms) => terms.every(holds));
    });
    draw();
  };

  const sortBy = (index) => {
    state.sign = state.column === index ? -state.sign : 1;
    state.column = index;
    state.order.sort(compare(index));
    state.page = 0;
    heads();
    filter();
    at("all").tHead.querySelector(`[data-column="${index}"] button`).focus();
  };

  const heads = () => {
    at("all").tHead.rows[0].replaceChildren(...inView().map((index) => {
      const button = make("button", { type: "button" }, columns[index].name);
      const sorted = index !== state.column ? "none" : state.sign === 1 ? "ascending" : "descending";
      const head = make("th", { scope: "col", "aria-sort": sorted, "data-column": index }, button);
      if (columns[index].numeric) head.classList.add("number");
      if (index === NAME) head.classList.add("fixed");
      button.addEventListener("click", () => sortBy(index));
      return head;
    }));
  };

  for (const index of order.slice(1)) {
    const box = make("input", { type: "checkbox" });
    box.checked = visible.has(index);
    box.addEventListener("change", () => {
      visible[box.checked ? "add" : "delete"](index);
      heads();
      draw();
    });
    at("columns").append(make("label", { class: "check" }, box, ` ${columns[index].name}`));
  }

  /* Numbers as they were recorded; an interval and counts are columns of their own. */
  const csvHeads = () =>
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
  const download = (name, rows) => csv.save(`${run}-${name}.csv`, csv.text(csvHeads(), rows.map(record)));
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
    if (event.target.closest("[data-config]")) return;
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
    suggest();
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

  at("filter").addEventListener("focus", suggest);
  heads();
  filter();
})();
