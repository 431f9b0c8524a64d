/* The viewer of prompts and responses. Texts are hostile: they become text nodes and nothing else. */
page.load("samples").then((data) => {
  const root = document.getElementById("viewer");
  if (data === null || root === null) return;

  const SIZE = 25;
  const CUT = 1;
  const DEGENERATE = 2;
  const DIFFERS = -2;
  const BEYOND = -3;
  const columns = [...data.lists, ...data.judges];
  const isJudge = (column) => column >= data.lists.length;

  /* What a browser would hide, obey or fail to draw: control and bidi characters, halves of pairs, tags. */
  const UNSEEN = new RegExp(
    "[\\u0000-\\u0008\\u000b\\u000c\\u000e-\\u001f\\u007f-\\u009f\\u00ad\\u061c\\u180e\\u200b\\u200e\\u200f" +
      "\\u2028-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb]|\\r(?!\\n)|\\udb40[\\udc00-\\udfff]|" +
      "[\\ud800-\\udbff](?![\\udc00-\\udfff])|(?<![\\ud800-\\udbff])[\\udc00-\\udfff]",
    "g",
  );

  const escaped = (found) => {
    const code = found.codePointAt(0);
    const digits = code.toString(16).toUpperCase().padStart(4, "0");
    return code > 0xffff ? `\\u{${digits}}` : `\\u${digits}`;
  };

  const plain = (text) => text.replace(UNSEEN, escaped);

  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };

  /** Add text to a node with every unseen character as a visible escape. */
  const write = (node, text) => {
    let last = 0;
    for (const match of text.matchAll(UNSEEN)) {
      node.append(text.slice(last, match.index));
      node.append(make("span", { class: "escape", title: "a character that would not be seen" }, escaped(match[0])));
      last = match.index + match[0].length;
    }
    node.append(text.slice(last));
  };

  /** A box of text; `spans` are `[start, end, list]` to mark, and may overlap. */
  const textBox = (text, left, spans, label) => {
    const box = make("div", { class: "text", dir: "auto" });
    if (text.trim() === "") box.append(make("em", {}, text === "" ? "(empty)" : "(blank)"));
    const edges = [...new Set([0, text.length, ...spans.flatMap(([start, end]) => [start, end])])];
    edges.sort((a, b) => a - b);
    for (let i = 0; i + 1 < edges.length; i += 1) {
      const names = spans.filter(([start, end]) => start <= edges[i] && edges[i + 1] <= end).map((span) => span[2]);
      const ends = spans.filter((span) => span[1] === edges[i + 1]).map((span) => span[2]);
      const marked = { "data-lists": names.join(", "), "data-ends": ends.join(", ") };
      const part = names.length ? make("mark", marked) : box;
      write(part, text.slice(edges[i], edges[i + 1]));
      if (part !== box) box.append(part);
    }
    const parts = [make("h4", {}, label), box];
    if (left > 0) parts.push(make("p", { class: "note" }, `${left.toLocaleString("en")} more characters are not in this page.`));
    return make("div", { class: "side" }, ...parts);
  };

  /* Rows: one prompt and answer of a configuration under a seed, with the verdict of each column:
     true for a refusal (or safe), false for an answer (or unsafe), null where there is none. */
  const rowsOf = (set) => {
    if (set.rows) return set.rows;
    const judged = set.judged.map(([judge, suite, answers]) => ({ judge, suite, answers, next: 0 }));
    set.rows = data.orders[set.order].map((prompt, i) => {
      const suite = data.prompts[prompt][0];
      const kind = data.suites[suite][1];
      const answer = data.answers[set.answers[i]];
      const verdicts = data.lists.map((_, list) => (answer[3 + list] ? answer[3 + list][0] === 1 : null));
      const said = data.judges.map(() => null);
      const codes = data.judges.map(() => "");
      for (const item of judged) {
        if (item.suite !== suite) continue;
        const code = item.answers[item.next];
        item.next += 1;
        codes[item.judge] = code;
        if (code === "1" || code === "0") said[item.judge] = (code === "1") === (kind === "harmless");
      }
      return { prompt, answer, number: set.answers[i], suite, kind, verdicts: [...verdicts, ...said], codes };
    });
    set.byPrompt = new Map(set.rows.map((row) => [row.prompt, row]));
    return set.rows;
  };

  const bases = data.sets.filter((set) => set.id === data.base);
  const baseOf = (set) => bases.find((base) => base.seed === set.seed) ?? bases[0] ?? null;
  const baseRow = (set, row) => {
    const base = baseOf(set);
    if (base === null || base === set) return null;
    rowsOf(base);
    return base.byPrompt.get(row.prompt) ?? null;
  };

  const isBad = (row, column) => row.verdicts[column] !== null && row.verdicts[column] === (row.kind === "harmless");
  const isFlipped = (set, row, column) => {
    const other = baseRow(set, row);
    if (other === null || other.verdicts[column] === null || row.verdicts[column] === null) return false;
    return other.verdicts[column] !== row.verdicts[column];
  };
  const disagree = (row, from, to) => new Set(row.verdicts.slice(from, to).filter((v) => v !== null)).size > 1;

  const word = (row, column) => {
    const value = row.verdicts[column];
    if (value === null) return row.codes[column - data.lists.length] === "c" ? "not judged: cut short" : "no verdict";
    if (row.kind === "harmless") return value ? "over-refusal" : "answered";
    if (isJudge(column)) return value ? "safe" : "unsafe";
    return value ? "refusal" : "unsafe";
  };

  const chip = (row, column) => {
    const none = row.verdicts[column] === null;
    const bad = isBad(row, column);
    const symbol = make("span", { "aria-hidden": "true" }, none ? "–" : bad ? "⚠" : "✓");
    return make("span", { class: `chip ${none ? "none" : bad ? "bad" : "fine"}` }, symbol, ` ${word(row, column)}`);
  };

  /** The words that decided, as they stand in the response; the pattern where they are not in this page. */
  const saidAs = (row, [, phrase, start, end]) =>
    plain(start >= 0 && row.answer[0] !== null ? row.answer[0].slice(start, end) : data.phrases[phrase]);

  const reason = (row, column) => {
    if (isJudge(column)) return "";
    const entry = row.answer[3 + column];
    if (!entry) return "";
    const parts = [];
    if (entry[1] >= 0) parts.push(`“${saidAs(row, entry)}”`);
    else if (entry[0] === 1) parts.push("by its length, without a phrase");
    if (entry[2] === DIFFERS) parts.push("as recorded; the list of this version disagrees");
    if (entry[2] === BEYOND) parts.push("in the part that is not shown");
    return parts.join(", ");
  };

  const spansOf = (row) =>
    data.lists.flatMap((name, list) => {
      const entry = row.answer[3 + list];
      return entry && entry[1] >= 0 && entry[2] >= 0 ? [[entry[2], entry[3], name]] : [];
    });

  const state = { set: null, column: 0, suite: "", text: "", at: 0, flippedFirst: true };
  const only = { unsafe: false, refused: false, disagree: false, flipped: false, judges: false, degenerate: false };

  const passes = {
    unsafe: (row) => row.kind === "harmful" && isBad(row, state.column),
    refused: (row) => row.kind === "harmless" && isBad(row, state.column),
    disagree: (row) => disagree(row, 0, data.lists.length),
    flipped: (row) => isFlipped(state.set, row, state.column),
    judges: (row) => disagree(row, 0, columns.length),
    degenerate: (row) => (row.answer[2] & DEGENERATE) !== 0,
  };

  const found = () => {
    const wanted = state.text.toLowerCase();
    const active = Object.keys(only).filter((name) => only[name]);
    const rank = (row) => (isFlipped(state.set, row, state.column) ? (isBad(row, state.column) ? 0 : 1) : isBad(row, state.column) ? 2 : 3);
    const rows = rowsOf(state.set);
    const sorted = state.flippedFirst ? [...rows].sort((a, b) => rank(a) - rank(b)) : rows;
    return sorted.filter((row) => {
      if (state.suite !== "" && row.suite !== Number(state.suite)) return false;
      if (!active.every((name) => passes[name](row))) return false;
      if (wanted === "") return true;
      const prompt = data.prompts[row.prompt];
      return [prompt[1], prompt[2], row.answer[0]].some((text) => text !== null && text.toLowerCase().includes(wanted));
    });
  };

  /* Controls. */
  const option = (value, text) => {
    const node = make("option", {}, text);
    node.value = value;
    return node;
  };
  const field = (label, input) => make("label", { class: "field" }, make("span", {}, label), input);
  const select = (identity) => make("select", { id: identity });

  const chooser = select("sample-configuration");
  const seeds = select("sample-seed");
  const suites = select("sample-suite");
  const judgeOf = select("sample-column");
  const order = select("sample-order");
  order.append(make("option", { value: "flipped" }, "flipped from base first"), make("option", { value: "stored" }, "as in the suites"));
  const search = make("input", { type: "search", id: "sample-search", autocomplete: "off", placeholder: "words or id" });
  const message = make("p", { class: "note", role: "status" });
  const heading = make("p", { class: "sample-title" });
  const counts = make("div", { class: "scroll", tabindex: "0" });
  const list = make("div", { class: "sample-list" });
  const range = make("output", { id: "sample-count", "aria-live": "polite" });
  const back = make("button", { type: "button" }, "← Previous");
  const next = make("button", { type: "button" }, "Next →");
  const reveal = make("button", { type: "button", id: "sample-reveal" }, "Reveal all on this page");

  const title = (set) => [set.names.join(", "), set.values, set.id].filter(Boolean).map(plain).join(" · ");
  const configurations = new Map();
  for (const set of data.sets) {
    if (!configurations.has(set.id)) configurations.set(set.id, []);
    configurations.get(set.id).push(set);
  }
  const groups = [["Compared above", []], ["On the front", []], ["Others", []]];
  for (const [id, sets] of configurations) {
    const names = sets[0].names.filter((name) => name !== "no gain");
    const group = names.some((name) => name !== "front") ? 0 : names.length ? 1 : 2;
    groups[group][1].push(option(id, title(sets[0])));
  }
  for (const [label, options] of groups) {
    if (options.length) chooser.append(make("optgroup", { label }, ...options));
  }
  suites.append(option("", "all suites"), ...data.suites.map(([name], i) => option(String(i), plain(name))));
  judgeOf.append(...columns.map((name, i) => option(String(i), `${plain(name)}${i === 0 ? " (first list)" : ""}`)));

  const toggles = [
    ["unsafe", "unsafe only"],
    ["refused", "over-refusals only"],
    ["disagree", "lists disagree"],
    ["flipped", "flipped from base"],
    ...(data.judges.length ? [["judges", "lists or judges disagree"]] : []),
    ["degenerate", "degenerate"],
  ].filter(([name]) => (name === "disagree" ? data.lists.length > 1 : name !== "flipped" || bases.length > 0));

  const boxes = toggles.map(([name, label]) => {
    const box = make("input", { type: "checkbox", id: `sample-${name}` });
    box.addEventListener("change", () => {
      only[name] = box.checked;
      draw();
    });
    return make("label", { class: "toggle" }, box, ` ${label} `, make("small", { "data-count": name }));
  });

  /* What is shown of one row: one verdict where all agree, else that of each list and judge. */
  const agreed = (row) => columns.length > 1 && row.verdicts.every((verdict) => verdict !== null && verdict === row.verdicts[0]);
  const verdictList = (row) => {
    const node = make("ul", { class: "verdicts" });
    if (row.kind !== "text" && agreed(row)) {
      const why = reason(row, state.column);
      const item = make("li", {}, chip(row, state.column), " ", make("span", { class: "judge" }, `all ${columns.length} agree`));
      if (why) item.append(" ", make("span", { class: "phrase" }, why));
      node.append(item);
      return node;
    }
    columns.forEach((name, column) => {
      if (row.kind === "text") return;
      const why = reason(row, column);
      const item = make("li", {}, make("span", { class: "judge" }, plain(name)), " ", chip(row, column));
      if (why) item.append(" ", make("span", { class: "phrase" }, why));
      node.append(item);
    });
    return node;
  };

  const remarks = (row, other) => {
    const parts = [];
    if (isFlipped(state.set, row, state.column)) parts.push(`⇄ flipped from base: was ${word(other, state.column)}`);
    if (disagree(row, 0, data.lists.length)) parts.push("≠ lists disagree");
    if (row.answer[2] & DEGENERATE) parts.push("∅ degenerate");
    if (row.answer[2] & CUT) parts.push("✂ ended early");
    return parts.map((text) => make("span", { class: "remark" }, text));
  };

  const fill = (body, row, other) => {
    if (body.childElementCount) return;
    const prompt = data.prompts[row.prompt];
    body.append(textBox(prompt[2], prompt[3], [], "Prompt"));
    const sides = make("div", { class: "sides" });
    sides.append(textBox(row.answer[0], row.answer[1], spansOf(row), "This configuration"));
    if (other !== null && other.number === row.number) {
      sides.append(make("div", { class: "side" }, make("h4", {}, "Untouched model"), make("p", { class: "note" }, "The same words.")));
    } else if (other !== null) {
      const side = textBox(other.answer[0], other.answer[1], spansOf(other), "Untouched model");
      if (row.kind !== "text") side.firstChild.append(" ", chip(other, state.column));
      if (other.answer[2] & CUT) side.firstChild.append(" ", make("span", { class: "remark" }, "✂ ended early"));
      sides.append(side);
    }
    body.append(sides);
    if (prompt.length > 4) body.append(textBox(prompt[4], 0, [], "Reference"));
    for (const box of body.querySelectorAll(".text")) {
      if (box.scrollHeight <= box.clientHeight + 1) continue;
      box.tabIndex = 0;
      box.setAttribute("role", "region");
      box.setAttribute("aria-label", `${box.previousSibling.textContent}, scrolls`);
    }
  };

  const card = (row) => {
    const prompt = data.prompts[row.prompt];
    const other = baseRow(state.set, row);
    const head = make("h3", {}, make("bdi", {}, plain(prompt[1])), " ", make("small", {}, plain(data.suites[row.suite][0])));
    const node = make("article", { class: "sample" }, make("div", { class: "sample-head" }, head, ...remarks(row, other)));
    node.append(verdictList(row));
    const body = make("div", { class: "sample-body" });
    if (row.kind === "harmful" && data.redacted) {
      node.append(make("p", { class: "note" }, "Prompt and response are left out of this file (--redact)."));
      return node;
    }
    if (row.kind !== "harmful") {
      node.append(body);
      return [node, () => fill(body, row, other)];
    }
    const notice = make("summary", {}, "Show prompt and response (harmful suite)");
    const details = make("details", { class: "hidden-text" }, notice, body);
    details.addEventListener("toggle", () => {
      if (details.open) fill(body, row, other);
    });
    node.append(details);
    return node;
  };

  const share = (rows, kind, column) => {
    const judged = rows.filter((row) => row.kind === kind && row.verdicts[column] !== null);
    return judged.length ? `${judged.filter((row) => isBad(row, column)).length}/${judged.length}` : "–";
  };

  const drawCounts = () => {
    const rows = rowsOf(state.set);
    const heads = ["verdict by", "unsafe", "over-refused", "flipped from base"];
    const body = make("tbody");
    columns.forEach((name, column) => {
      const flips = rows.filter((row) => isFlipped(state.set, row, column));
      const worse = flips.filter((row) => isBad(row, column)).length;
      const compared = baseOf(state.set) !== null && baseOf(state.set) !== state.set;
      const cells = [
        share(rows, "harmful", column),
        share(rows, "harmless", column),
        compared ? `${flips.length} (${worse} to the worse)` : "–",
      ];
      const line = make("tr", {}, make("th", { scope: "row" }, plain(name)));
      line.append(...cells.map((text) => make("td", { class: "number" }, text)));
      body.append(line);
    });
    for (const node of root.querySelectorAll("[data-count]")) {
      node.textContent = `(${rows.filter(passes[node.dataset.count]).length})`;
    }
    const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
    counts.replaceChildren(make("table", { class: "counts" }, make("thead", {}, head), body));
  };

  /* Prompts by configurations: those whose verdict is not the same in all. */
  const MOST_PROMPTS = 60;
  const matrix = make("details", { id: "sample-matrix", class: "matrix" });
  const drawMatrix = () => {
    const sets = [...configurations.values()].map((each) => each.find((set) => set.seed === state.set.seed) ?? each[0]);
    const byPrompt = new Map();
    sets.forEach((set, index) => {
      for (const row of rowsOf(set)) {
        if (row.kind !== "harmful" || row.verdicts[state.column] === null) continue;
        if (!byPrompt.has(row.prompt)) byPrompt.set(row.prompt, new Array(sets.length).fill(null));
        byPrompt.get(row.prompt)[index] = row;
      }
    });
    const bad = (rows) => rows.filter((row) => row !== null && isBad(row, state.column)).length;
    const differing = [...byPrompt].filter(([, rows]) => bad(rows) > 0 && bad(rows) < rows.filter(Boolean).length);
    differing.sort(([, a], [, b]) => bad(b) - bad(a));
    const shown = differing.slice(0, MOST_PROMPTS);
    const head = make("tr", {}, make("td"), ...sets.map((set) =>
      make("th", { scope: "col" }, make("span", { title: set.id }, plain(set.names.filter((name) => name !== "front")[0] ?? set.values.replace(/^.*?(?=lr )/, "")) || set.id))));
    const lines = shown.map(([prompt, rows]) => make("tr", {}, make("th", { scope: "row" }, plain(data.prompts[prompt][1])),
      ...rows.map((row, index) => {
        if (row === null) return make("td", { class: "none" }, "–");
        const unsafe = isBad(row, state.column);
        const cell = make("button", { type: "button", class: unsafe ? "bad" : "fine", "aria-label": `${plain(data.prompts[prompt][1])}, ${sets[index].id}: ${word(row, state.column)}` }, unsafe ? "⚠" : "✓");
        cell.addEventListener("click", () => {
          search.value = data.prompts[prompt][1];
          state.text = search.value;
          choose(sets[index].id, sets[index].seed);
          list.scrollIntoView({ block: "start" });
        });
        return make("td", {}, cell);
      })));
    const rest = differing.length - shown.length;
    const told = differing.length === 0 ? "No harmful prompt is answered differently by the configurations in this page."
      : `⚠ unsafe, ✓ refused. ${byPrompt.size - differing.length} of ${byPrompt.size} prompts are not shown, as all configurations in this page agree${rest > 0 ? `; nor are ${rest} more that differ` : ""}. Click a cell for its texts.`;
    matrix.replaceChildren(make("summary", {}, `Flip matrix: ${differing.length} prompts that configurations answer differently`),
      make("p", { class: "note" }, told),
      make("div", { class: "scroll tall", tabindex: "0" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...lines))));
  };

  const draw = (at = 0) => {
    const rows = found();
    const last = Math.max(0, Math.ceil(rows.length / SIZE) - 1);
    state.at = Math.min(Math.max(0, at), last);
    const start = state.at * SIZE;
    const part = rows.slice(start, start + SIZE);
    const all = rowsOf(state.set).length;
    range.textContent = rows.length
      ? `showing ${start + 1} to ${start + part.length} of ${rows.length}${rows.length < all ? ` (filtered from ${all})` : ""}`
      : `no prompt of ${all} passes these filters`;
    back.disabled = state.at === 0;
    next.disabled = state.at === last;
    reveal.hidden = data.redacted || !part.some((row) => row.kind === "harmful");
    const later = [];
    const cards = part.map((row) => {
      const made = card(row);
      if (!Array.isArray(made)) return made;
      later.push(made[1]);
      return made[0];
    });
    list.replaceChildren(...cards);
    for (const job of later) job();
  };

  const choose = (id, seed) => {
    const sets = configurations.get(id);
    state.set = sets.find((set) => set.seed === seed) ?? sets[0];
    chooser.value = id;
    seeds.replaceChildren(...sets.map((set) => option(String(set.seed), String(set.seed))));
    seeds.value = String(state.set.seed);
    heading.textContent = title(state.set);
    message.textContent =
      state.set.status === "complete" ? "" : `This record is ${state.set.status}: it holds only the prompts answered before it ended.`;
    drawCounts();
    drawMatrix();
    draw();
  };

  chooser.addEventListener("change", () => choose(chooser.value, state.set.seed));
  seeds.addEventListener("change", () => choose(chooser.value, Number(seeds.value)));
  suites.addEventListener("change", () => {
    state.suite = suites.value;
    draw();
  });
  judgeOf.addEventListener("change", () => {
    state.column = Number(judgeOf.value);
    drawCounts();
    drawMatrix();
    draw();
  });
  order.addEventListener("change", () => {
    state.flippedFirst = order.value === "flipped";
    draw();
  });
  search.addEventListener("input", () => {
    state.text = search.value.trim();
    draw();
  });
  const turn = (by) => {
    draw(state.at + by);
    list.scrollIntoView({ block: "start" });
  };
  back.addEventListener("click", () => turn(-1));
  next.addEventListener("click", () => turn(1));
  reveal.addEventListener("click", () => {
    for (const details of list.querySelectorAll("details")) details.open = true;
  });

  page.onSelection((ids, source) => {
    if (source === "samples" || !ids?.size || ids.has(state.set.id)) return;
    const here = [...ids].find((id) => configurations.has(id));
    if (here !== undefined) choose(here, state.set.seed);
    else message.textContent = `The responses of ${plain([...ids][0])} are not in this page; shown is still ${state.set.id}.`;
  });

  const filters = make("fieldset", { class: "toggles" }, make("legend", {}, "Show"), ...boxes);
  root.append(
    make(
      "div",
      { class: "sample-controls" },
      field("Configuration", chooser),
      field("Seed", seeds),
      field("Suite", suites),
      field("Verdict by", judgeOf),
      field("Order", order),
      field("Search", search),
    ),
    heading,
    message,
    counts,
    matrix,
    filters,
    make("div", { class: "sample-pager" }, range, back, next, reveal),
    list,
  );
  const first = data.sets.find((set) => set.names.includes("recommended")) ?? data.sets.find((set) => set.id !== data.base);
  choose((first ?? data.sets[0]).id);
});
