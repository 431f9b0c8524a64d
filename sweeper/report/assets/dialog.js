/* One configuration: its values, what can be done with it, and the files of other trainers. Whatever carries
   `data-config` opens it. */
(() => {
  const { make } = page;
  const { ids, columns } = page.data("configurations");
  const exports = page.data("exports");
  const root = document.getElementById("configuration");
  const body = document.getElementById("configuration-body");
  const rows = new Map(ids.map((id, row) => [id, row]));
  let format = exports.formats?.[0][0];

  const button = (text, act, attributes = {}) => {
    const made = make("button", { type: "button", ...attributes }, text);
    made.addEventListener("click", () => act(made));
    return made;
  };
  const values = (id) => {
    const known = columns.filter(({ name }) => name !== "configuration");
    return make("dl", { class: "constants" }, ...known.flatMap(({ name, cells, at }) => {
      const [text, , detail] = cells[at[rows.get(id)]];
      return text === "" ? [] : [make("div", {}, make("dt", {}, name), make("dd", {}, detail ? `${text} (${detail})` : text))];
    }));
  };

  const actions = (id) => {
    const full = !page.tray().has(id) && page.tray().size >= page.limit;
    const parts = [
      button("select in every chart", () => { page.select([id], "dialog"); root.close(); }),
      button(page.tray().has(id) ? "take out of the comparison" : "compare", () => {
        if (page.toggle(id, "dialog")) views.reveal(document.getElementById("compare"));
        root.close();
      }, full ? { disabled: "", title: `The comparison holds ${page.limit} already, the most it can.` } : {}),
    ];
    const chooser = document.getElementById("sample-configuration");
    if (chooser && [...chooser.options].some(({ value }) => value === id)) {
      parts.push(button("see its responses", () => {
        chooser.value = id;
        chooser.dispatchEvent(new Event("change"));
        root.close();
        views.reveal(document.getElementById("samples"));
      }));
    }
    return make("div", { class: "tools" }, ...parts);
  };

  const commands = (id) => {
    const lines = [`sweeper show ${page.quotedRun()} ${id}`];
    if (format) lines.push(`sweeper export ${page.quotedRun()} --format ${format} --config ${id}`);
    return make("ul", { class: "commands" }, ...lines.map((line) =>
      make("li", {}, make("code", {}, line), " ", page.copyButton(line, `copy: ${line}`))));
  };

  const files = (id) => {
    if (!format) return [];
    const given = exports.of[id];
    if (given === undefined) return [make("p", { class: "note" }, "The files of this configuration are not in the page; the command writes them.")];
    const tabs = exports.formats.map(([name, title]) => button(title, () => { format = name; show(id); },
      { class: "tab", "aria-pressed": name === format }));
    const found = given[format];
    const texts = typeof found === "string" ? [make("p", { class: "warning" }, found)]
      : found.map(([name, place], index) => make("details", index === 0 ? { open: "" } : {},
        make("summary", {}, name), page.copyButton(exports.texts[place], `copy ${name}`), make("pre", { tabindex: "0" }, exports.texts[place])));
    return [make("h3", {}, "For another trainer"),
      make("p", { class: "note" }, "Paths of the machine of the sweep are shortened here; the command writes whole files."),
      make("div", { class: "tools", role: "group", "aria-label": "trainer" }, ...tabs), ...texts];
  };

  const show = (id) => {
    const column = columns.find(({ name }) => name === "name");
    document.getElementById("configuration-title").replaceChildren(
      column ? column.cells[column.at[rows.get(id)]][0] : id, " ", make("code", {}, id), " ", page.copyButton(id, "copy the id"));
    body.replaceChildren(actions(id), values(id), make("h3", {}, "Commands"), commands(id), ...files(id));
  };

  document.addEventListener("click", (event) => {
    const id = event.target.closest("[data-config]")?.dataset.config;
    if (id === undefined || !rows.has(id)) return;
    show(id);
    root.showModal();
  });
})();
