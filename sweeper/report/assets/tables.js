/* The table below a chart: sorted by its heads, and taken away as CSV. */
(() => {
  const { make } = page;
  const collator = new Intl.Collator("en", { numeric: true });
  const number = (text) => (text.trim() === "" ? NaN : Number(text));

  const compare = (index, sign) => (a, b) => {
    const [x, y] = [a.cells[index].textContent, b.cells[index].textContent];
    if ((x === "") !== (y === "")) return x === "" ? 1 : -1;
    const [p, q] = [number(x), number(y)];
    return sign * (Number.isNaN(p) || Number.isNaN(q) ? collator.compare(x, y) : p - q);
  };

  const value = (text) => (Number.isNaN(number(text)) ? text : number(text));

  for (const table of document.querySelectorAll("table.data[data-csv]")) {
    const heads = Array.from(table.tHead.rows[0].cells);
    const names = heads.map((head) => head.textContent);
    const body = table.tBodies[0];
    heads.forEach((head, index) => {
      const button = make("button", { type: "button" }, names[index]);
      head.replaceChildren(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
        body.append(...Array.from(body.rows).sort(compare(index, sign)));
      });
    });
    const button = make("button", { type: "button", class: "csv" }, "CSV");
    button.addEventListener("click", () => {
      const rows = Array.from(body.rows, (row) => Array.from(row.cells, (cell) => value(cell.textContent)));
      csv.save(`${table.dataset.csv}.csv`, csv.text(names, rows));
    });
    table.closest(".scroll").before(button);
  }
})();
