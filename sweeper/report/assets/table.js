(() => {
  const table = document.getElementById("all");
  const body = table.tBodies[0];
  const heads = Array.from(table.tHead.rows[0].cells);

  const key = (row, index) => {
    const cell = row.cells[index];
    return cell.dataset.number ?? cell.dataset.sort ?? cell.textContent;
  };

  const compare = (a, b) => {
    const x = Number(a);
    const y = Number(b);
    if (a !== "" && b !== "" && !Number.isNaN(x) && !Number.isNaN(y)) return x - y;
    return a.localeCompare(b);
  };

  const absent = (text) => text === "" || text === "inf";

  const sortBy = (index) => {
    const head = heads[index];
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const rows = Array.from(body.rows);
    rows.sort((a, b) => {
      const x = key(a, index);
      const y = key(b, index);
      // What was not measured stays at the end in both directions.
      if (absent(x) !== absent(y)) return absent(x) ? 1 : -1;
      return sign * compare(x, y);
    });
    body.append(...rows);
  };

  heads.forEach((head, index) => {
    head.querySelector("button").addEventListener("click", () => sortBy(index));
  });

  // Plotly looks at the window only; a figure must also follow its own column.
  const observer = new ResizeObserver((entries) => {
    for (const entry of entries) {
      const plot = entry.target.querySelector(".js-plotly-plot");
      if (plot) Plotly.Plots.resize(plot);
    }
  });
  document.querySelectorAll(".figure").forEach((box) => observer.observe(box));

  const input = document.getElementById("filter");
  const shown = document.getElementById("shown");
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of body.rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      count += row.hidden ? 0 : 1;
    }
    shown.textContent = `${count} of ${body.rows.length}`;
  });
})();
