/* The comparison of two to four configurations: what differs, the paired tests, the command to export one. */
(() => {
  const { make } = page;
  const { ids, columns, formats } = page.data("configurations");
  const tests = page.data("pairs");
  const root = document.getElementById("tray");
  const rows = new Map(ids.map((id, row) => [id, row]));
  const cell = (id, index) => columns[index].cells[columns[index].at[rows.get(id)]];
  const isRate = (name) => name.split("/")[0].endsWith("_rate");
  let format = formats[0];

  const amount = (name, value) =>
    isRate(name) ? `${(100 * value).toFixed(1)} points` : value.toPrecision(3);
  const signed = (name, value) => `${value > 0 ? "+" : ""}${amount(name, value)}`;

  const headOf = (id) => {
    const remove = make("button", { type: "button", "aria-label": `take ${id} out` }, "×");
    remove.addEventListener("click", () => page.toggle(id, "tray"));
    return make("th", { scope: "col" }, make("code", { dir: "auto" }, id), " ", remove);
  };

  const values = (chosen) => {
    const body = make("tbody");
    columns.forEach(({ name }, index) => {
      if (name === "configuration") return;
      const found = chosen.map((id) => cell(id, index));
      const differs = new Set(found.map(([text, value]) => JSON.stringify([text, value]))).size > 1;
      const line = make("tr", differs ? { class: "differs" } : {});
      const head = make("th", { scope: "row" }, name);
      if (differs) head.prepend(make("abbr", { title: "differs", "aria-label": "differs" }, "≠"), " ");
      line.append(head);
      for (const [text, , detail] of found) {
        const box = make("td", {}, text);
        if (detail) box.append(make("br"), make("small", {}, detail));
        line.append(box);
      }
      body.append(line);
    });
    return make("div", { class: "scroll", tabindex: "0" },
      make("table", { class: "side" }, make("thead", {}, make("tr", {}, make("td"), ...chosen.map(headOf))), body));
  };

  const pairLine = (first, second, name) => {
    const found = paired.difference(tests, first, second, name);
    if (found === null) return [];
    const [low, high] = found.interval ?? [null, null];
    const apart = low !== null && (low > 0 || high < 0);
    const verdict = low === null ? "unknown" : apart ? (found.difference > 0 ? "▲ higher" : "▼ lower") : "– not distinguishable";
    const between = low === null ? "" : `${signed(name, low)} to ${signed(name, high)}`;
    const p = found.p === null ? "" : found.p < 0.0001 ? "< 0.0001" : found.p.toFixed(4);
    const texts = [signed(name, found.difference), between, p, String(found.n), verdict, found.claim, found.test];
    const head = make("th", { scope: "row" }, `${first} − ${second}`);
    return [make("tr", {}, head, make("td", {}, name), ...texts.map((text) => make("td", {}, text)))];
  };

  const differences = (chosen) => {
    const known = chosen.filter((id) => tests.of[id]);
    const missing = chosen.filter((id) => !tests.of[id]);
    const lines = known.flatMap((first, i) =>
      known.slice(i + 1).flatMap((second) => tests.metrics.flatMap((name) => pairLine(first, second, name))),
    );
    const heads = ["pair", "metric", "difference", "95 % interval", "p", "n", "the first is", "holds for", "how"];
    const parts = [];
    if (lines.length) {
      const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
      parts.push(make("h3", {}, "Paired tests on the same prompts and rows"),
        make("div", { class: "scroll", tabindex: "0" }, make("table", { class: "tests" }, make("thead", {}, head), make("tbody", {}, ...lines))),
        make("p", { class: "note" }, "Computed in this page from the samples in it. These are tests of pairs you chose after seeing them: with many looks some differ by chance. These weights: only prompts vary. Trained again: training runs vary, too."));
    }
    if (missing.length) {
      parts.push(make("p", { class: "warning" },
        `Not tested here: the samples of ${missing.join(", ")} were left out of this page for its size (${tests.left_out} configurations in all).`));
    }
    return parts;
  };

  const commands = (chosen) => {
    const choice = make("select", { id: "tray-format" },
      ...formats.map((name) => make("option", name === format ? { selected: "" } : {}, name)));
    choice.addEventListener("change", () => {
      format = choice.value;
      draw();
    });
    const lines = chosen.map((id) => {
      const command = `sweeper export ${page.quotedRun()} --format ${format} --config ${id}`;
      return make("li", {}, make("code", {}, command), " ", page.copyButton(command, `copy: ${command}`));
    });
    return [make("h3", {}, "Export one"),
      make("p", {}, make("label", { for: "tray-format" }, "Format "), choice), make("ul", { class: "commands" }, ...lines)];
  };

  const draw = () => {
    const chosen = [...page.tray()].filter((id) => rows.has(id));
    document.getElementById("tray-hint").hidden = chosen.length > 1;
    if (chosen.length === 0) return root.replaceChildren();
    const parts = chosen.length > 1 ? differences(chosen) : [];
    return root.replaceChildren(values(chosen), ...parts, ...commands(chosen));
  };

  page.onTray(draw);
  draw();
})();
