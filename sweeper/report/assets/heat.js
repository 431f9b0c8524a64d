/* Two settings against one metric. A cell is one configuration; all other settings are those of the recommended (or
   nearest) one. A third setting gives panels, at most nine. */
const heat = (() => {
  const info = page.data("slices")?.maps ?? null;
  const plot = document.getElementById("heat");
  if (info === null) return null;
  const { limits, settings } = page.data("slices");
  const { ids, isRate, plain } = cells;
  const at = (name) => document.getElementById(name);
  const centre = ids.indexOf(info.centre);
  const INK = "#808794";
  const RING = "#d9480f";
  const CELL_INK = "#1f2328";
  // Light enough all along for dark text with a contrast of at least 5:1, on light and dark pages.
  const SEQUENTIAL = ["#f2f7fc", "#b3d2e8", "#6baed6"];
  const [KEPT, EVEN, BROKEN] = ["#6baed6", "#f1f1ee", "#f98e52"];
  const ROW = 40;
  const HEAD = 56;
  let drawn = false;
  let width = 0;

  /** The different values of a setting over some rows, as the table says them: numbers rising, nothing last. */
  const levels = (name, rows) => [...new Map(rows.map((row) => [cells.text(name, row), cells.value(name, row)]))]
    .sort(([a, x], [b, y]) => (a === "") - (b === "") || (x < y ? -1 : x > y ? 1 : 0)).map(([text]) => text);

  /** How far warmup and decay, as shares of the steps, are from those of the centre. */
  const far = (row) => ["warmup_steps", "decay_steps"].filter((name) => settings.includes(name)).reduce((sum, name) => {
    const share = (each) => (cells.value(name, each) ?? 0) / (settings.includes("max_steps") ? cells.value("max_steps", each) : 1);
    return sum + Math.abs(share(row) - share(centre));
  }, 0);

  /** Levels of both settings, and `[name, rows]` of each panel: a row of the table, or undefined, at each place. */
  const panels = (x, y, facet) => {
    const free = new Set([x, y, facet, "warmup_steps", "decay_steps"]);
    const fixed = settings.filter((name) => !free.has(name));
    const like = cells.searched.filter((row) => fixed.every((name) => cells.text(name, row) === cells.text(name, centre)));
    like.sort((a, b) => far(a) - far(b) || a - b);
    const found = new Map();
    for (const row of like) {
      const key = JSON.stringify([x, y, ...(facet ? [facet] : [])].map((name) => cells.text(name, row)));
      if (!found.has(key)) found.set(key, row);
    }
    const [xs, ys] = [levels(x, like), levels(y, like)];
    const names = facet ? levels(facet, like) : [null];
    return { xs, ys, fixed, panels: names.map((name) => [
      name === null ? "" : `${facet} ${name || "not set"}`,
      ys.map((b) => xs.map((a) => found.get(JSON.stringify([a, b, ...(name === null ? [] : [name])])))),
    ]) };
  };

  /** Around the limit where the metric has one: what keeps it on one side, what breaks it on the other. */
  const scale = (metric, values) => {
    const limit = limits[metric];
    const ends = [...values, ...(limit === undefined ? [] : [limit]), ...(isRate(metric) ? [0] : [])];
    const [cmin, cmax] = [Math.min(...ends), Math.max(...ends)];
    if (limit === undefined) return { cmin, cmax, colorscale: SEQUENTIAL.map((colour, i) => [i / 2, colour]) };
    const place = (limit - cmin) / (cmax - cmin);
    const inner = place > 0 && place < 1 ? [[place, EVEN]] : [];
    return { cmin, cmax, colorscale: [[0, place > 0 ? KEPT : EVEN], ...inner, [1, place < 1 ? BROKEN : EVEN]] };
  };

  /** Numbers with three digits, where these tell them apart. */
  const ticks = (name, texts) => {
    const digits = texts.map((text) => (cells.column(name).numeric && text !== "" ? String(Number(Number(text).toPrecision(3))) : text || "not set"));
    return (new Set(digits).size === texts.length ? digits : texts).map(plain);
  };

  const short = (metric, row, wide) => {
    const [value, counts] = [cells.value(metric, row), cells.cell(metric, row)[5] ?? ""];
    if (!isRate(metric)) return Math.abs(value) < 100 ? value.toFixed(3) : value.toPrecision(4);
    return `${(100 * value).toFixed(1)} %${wide && counts && !counts.includes(",") ? `<br>${plain(counts)}` : ""}`;
  };

  const why = (row) => {
    if (row === undefined) return "not measured";
    const status = cells.text("status", row);
    return status === "complete" ? "not measured" : status;
  };

  const tell = (...lines) => { at("heat-note").textContent = lines.filter(Boolean).join(" "); };

  const draw = async () => {
    const [x, y, metric] = ["heat-x", "heat-y", "heat-metric"].map((name) => at(name).value);
    const facet = [x, y].includes(at("heat-facet").value) ? "" : at("heat-facet").value;
    const { xs, ys, fixed, panels: all } = panels(x, y, facet);
    const measured = (row) => row !== undefined && cells.value(metric, row) !== null;
    const shown = all.filter(([, grid]) => grid.flat().some(measured));
    const rows = shown.flatMap(([, grid]) => grid.flat()).filter(measured);
    const values = rows.map((row) => cells.value(metric, row));
    const others = fixed.map((name) => `${name} ${cells.text(name, centre) || "not set"}`).join(", ");
    const rule = `A cell is one configuration. The ${info.which} one is outlined${others ? `, and all share its other settings: ${others}` : ""}.`;
    const left = all.length > shown.length ? `Not measured at all, and left out: ${all.filter((each) => !shown.includes(each)).map(([name]) => name).join(", ")}.` : "";
    const flat = new Set(values).size < 2;
    plot.hidden = flat;
    if (flat) {
      tell(values.length === 0 ? `No map of ${metric}: no cell has a value.`
        : `No map of ${metric}: it is ${short(metric, rows[0])} in ${values.length === 1 ? "the one cell" : `all ${values.length} cells`} that ${values.length === 1 ? "has" : "have"} a value.`, rule);
      return;
    }
    tell(rule, left, limits[metric] === undefined ? "" : "Colours meet at the limit: blue is below it, orange above.");
    width = plot.clientWidth;
    const columns = Math.max(1, Math.min(shown.length, 3, Math.floor((width - (width > 560 ? 160 : 90)) / Math.max(140, 46 * xs.length))));
    const lines = Math.ceil(shown.length / columns);
    const pixels = Math.max(2, ys.length) * ROW;
    const height = lines * (pixels + HEAD) + 70;
    const cellWidth = (width - (width > 560 ? 190 : 110)) / columns / xs.length;
    const selection = page.selection();
    const data = [];
    const layout = {
      template: "none", height, showlegend: false, dragmode: false, paper_bgcolor: "rgba(0, 0, 0, 0)", plot_bgcolor: "rgba(0, 0, 0, 0)",
      font: { color: INK, family: "system-ui, sans-serif", size: 13 }, annotations: [], shapes: [], margin: { l: 90, r: 20, t: 34, b: 60 }, hoverlabel: { align: "left" },
      coloraxis: { ...scale(metric, values), showscale: width > 560, colorbar: { title: { text: plain(metric), side: "right" }, thickness: 12, outlinewidth: 0, tickformat: isRate(metric) ? ".3~p" : ".3~g" } },
    };
    shown.forEach(([name, grid], index) => {
      const key = index === 0 ? "" : String(index + 1);
      const [line, place] = [Math.floor(index / columns), index % columns];
      const [xaxis, yaxis] = [`x${key}`, `y${key}`];
      const top = 1 - (line * (pixels + HEAD)) / (height - 94);
      const axis = { showgrid: false, zeroline: false, fixedrange: true, automargin: true, ticks: "" };
      layout[`xaxis${key}`] = { ...axis, anchor: yaxis, domain: [place / columns + (place ? 0.015 : 0), (place + 1) / columns], range: [-0.5, xs.length - 0.5],
        tickvals: xs.map((_, i) => i), ticktext: ticks(x, xs), ...(index + columns >= shown.length ? { title: { text: plain(x), standoff: 8 } } : {}) };
      layout[`yaxis${key}`] = { ...axis, anchor: xaxis, domain: [Math.max(0, top - pixels / (height - 94)), top], range: [-0.5, ys.length - 0.5],
        tickvals: ys.map((_, i) => i), ticktext: ticks(y, ys), showticklabels: place === 0, ...(place === 0 ? { title: { text: plain(y), standoff: 14 } } : {}) };
      const of = (rows, each) => rows.map((row) => row.map(each));
      const trace = (kept, opacity) => ({
        type: "heatmap", xaxis, yaxis, coloraxis: "coloraxis", xgap: 2, ygap: 2, hoverongaps: false, opacity,
        z: of(grid, (row) => (measured(row) && kept(row) ? cells.value(metric, row) : null)),
        text: of(grid, (row) => (measured(row) && kept(row) && cellWidth > 38 ? short(metric, row, cellWidth > 62) : "")),
        customdata: of(grid, (row) => (row === undefined ? null : ids[row])),
        hovertext: of(grid, (row) => (measured(row) ? `<b>${plain(ids[row])}</b><br>${plain(cells.text("name", row))}<br>${plain(metric)} ${plain(cells.text(metric, row))}` : "")),
        texttemplate: "%{text}", hovertemplate: "%{hovertext}<extra></extra>", textfont: { size: 11, color: CELL_INK },
      });
      const isChosen = (row) => selection === null || selection.has(ids[row]);
      if (selection !== null) data.push(trace((row) => !isChosen(row), 0.25));
      data.push(trace(isChosen, 1));
      const empty = grid.flatMap((line, b) => line.flatMap((row, a) => (measured(row) ? [] : [[a, b, why(row)]])));
      if (empty.length) data.push({ type: "scatter", mode: "text", xaxis, yaxis, hoverinfo: "skip", x: empty.map(([a]) => a), y: empty.map(([, b]) => b), text: empty.map((each) => (cellWidth > 50 ? plain(each[2]).replaceAll(" ", "<br>") : "·")), textfont: { size: 10, color: INK } });
      grid.forEach((line, b) => line.forEach((row, a) => row === centre && layout.shapes.push({ type: "rect", xref: xaxis, yref: yaxis, x0: a - 0.48, x1: a + 0.48, y0: b - 0.48, y1: b + 0.48, line: { color: RING, width: 3 } })));
      if (name !== "") layout.annotations.push({ text: plain(name), showarrow: false, xref: `${xaxis} domain`, yref: `${yaxis} domain`, x: 0.5, y: 1, yanchor: "bottom" });
    });
    // The room is kept before there is a map in it, so that nothing below jumps.
    plot.style.minHeight = `${height}px`;
    if (!drawn) return;
    const first = !plot.classList.contains("js-plotly-plot");
    await Plotly.react(plot, data, layout, { displaylogo: false });
    if (first) plot.on("plotly_click", ({ points }) => points[0]?.customdata && page.select([points[0].customdata], "heat"));
  };

  /** Both axes never show one setting: the other takes what this one had. */
  let before = [at("heat-x").value, at("heat-y").value];
  const swap = (own, other, old) => () => {
    if (at(own).value === at(other).value) at(other).value = before[old];
    before = [at("heat-x").value, at("heat-y").value];
    draw();
  };
  at("heat-x").addEventListener("change", swap("heat-x", "heat-y", 0));
  at("heat-y").addEventListener("change", swap("heat-y", "heat-x", 1));
  for (const name of ["heat-metric", "heat-facet"]) at(name).addEventListener("change", draw);
  page.onSelection(() => drawn && draw());
  const begin = async () => {
    if (drawn || (!window.Plotly && !(await page.plotly())) || drawn) return;
    drawn = true;
    await draw();
  };
  cells.near(plot.parentElement, begin);
  new ResizeObserver(() => plot.clientWidth > 0 && plot.clientWidth !== width && draw()).observe(plot);
  return { panels, scale };
})();
