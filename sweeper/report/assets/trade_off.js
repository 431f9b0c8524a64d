/* Other axes and colours for the trade-off, where more than two metrics decide. The first choice is the figure as the
   page came; every other one is made here from the table. The line is the front in the two axes alone. */
const tradeOff = (() => {
  const info = page.data("axes");
  if (info === null) return null;
  const plot = document.getElementById("front");
  const at = (name) => document.getElementById(name);
  const { ids, isRate, plain } = cells;
  const [INK, RING, FAINT, ONE] = ["#808794", "#d9480f", "rgba(128, 135, 148, 0.25)", "#4477aa"];
  const RAMP = [[0, "#5a62b8"], [0.33, "#2d8aa3"], [0.67, "#35b779"], [1, "#b3c73a"]];
  const TICKS = [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1];
  const metrics = new Map(info.metrics.map(([name, more, limit]) => [name, { more, limit }]));
  const first = [info.metrics[0][0], info.metrics[1][0], info.colour];
  const eligible = new Set(info.eligible);
  const members = new Set(info.members);

  /** The square root spreads rates near the limit. */
  const place = (name, value) => (isRate(name) ? Math.sqrt(value) : value);
  const measured = (row, ...names) => names.every((name) => cells.value(name, row) !== null);

  /** Rows of those that keep every limit and that no other such one dominates in the two metrics, by the first. */
  const front = (x, y) => {
    const loss = (name, row) => (metrics.get(name).more ? -1 : 1) * cells.value(name, row);
    const rows = ids.map((_, row) => row).filter((row) => eligible.has(ids[row]) && measured(row, x, y));
    rows.sort((a, b) => loss(x, a) - loss(x, b) || loss(y, a) - loss(y, b) || (ids[a] < ids[b] ? -1 : 1));
    const line = [];
    for (const row of rows) if (!line.length || loss(y, row) < loss(y, line.at(-1))) line.push(row);
    return line;
  };

  /** The middle eight tenths of ten or more values, with room around. */
  const range = (values) => {
    const sorted = [...values].sort((a, b) => a - b);
    const tenth = Math.floor(sorted.length / 10);
    const [low, high] = [sorted[tenth], sorted.at(-1 - tenth)];
    if (tenth < 1 || low === high) return {};
    const ends = [Math.max(sorted[0], low - 0.5 * (high - low)), Math.min(sorted.at(-1), high + 0.5 * (high - low))];
    const edge = 0.08 * (ends[1] - ends[0]);
    return { range: [ends[0] - edge, ends[1] + edge] };
  };

  const axis = (name, values) => {
    const title = { text: `${plain(name)}${isRate(name) ? " (square-root scale)" : ""}, better ${metrics.get(name).more ? "high" : "low"}`, standoff: 12 };
    const plainAxis = { title, gridcolor: FAINT, zeroline: false, automargin: true };
    if (!isRate(name)) return { ...plainAxis, ...range(values) };
    const ticks = TICKS.filter((each) => each <= Math.max(0.05, ...values));
    return { ...plainAxis, tickvals: ticks.map(Math.sqrt), ticktext: ticks.map((each) => `${100 * each} %`) };
  };

  /** Over the values of what was searched only. */
  const colours = (name, rows) => {
    if (name === "") return { color: ONE };
    const own = cells.searched.filter((row) => measured(row, name)).map((row) => cells.value(name, row));
    const known = [...new Set(own)].sort((a, b) => a - b);
    if (known.length < 2) return { color: ONE };
    const log = !metrics.has(name) && known[0] > 0 && known.at(-1) / known[0] >= 4;
    const scaled = (value) => (log ? Math.log10(value) : value);
    const few = known.length <= 8 ? known : [known[0], known[Math.floor(known.length / 2)], known.at(-1)];
    const text = (value) => (isRate(name) ? `${Number((100 * value).toPrecision(3))} %` : String(Number(value.toPrecision(3))));
    return { color: rows.map((row) => (measured(row, name) ? scaled(cells.value(name, row)) : NaN)), colorscale: RAMP, cmin: scaled(known[0]), cmax: scaled(known.at(-1)),
      showscale: true, colorbar: { title: { text: `${plain(name)}${log ? " (log scale)" : ""}`, side: "top" }, orientation: "h", y: -0.17, yanchor: "top", len: 0.7, thickness: 12, outlinewidth: 0, tickvals: few.map(scaled), ticktext: few.map(text) } };
  };

  const figure = (x, y, colour) => {
    const line = front(x, y);
    const drawn = new Set([...cells.searched, ...line]);
    const rows = [...drawn].filter((row) => measured(row, x, y)).sort((a, b) => members.has(ids[a]) - members.has(ids[b]));
    const bar = (name) => ({ type: "data", symmetric: false, color: INK, thickness: 1.2, width: 3,
      array: rows.map((row) => (members.has(ids[row]) ? place(name, cells.cell(name, row)[4] ?? cells.value(name, row)) - place(name, cells.value(name, row)) : 0)),
      arrayminus: rows.map((row) => (members.has(ids[row]) ? place(name, cells.value(name, row)) - place(name, cells.cell(name, row)[3] ?? cells.value(name, row)) : 0)) });
    const on = rows.map((row) => members.has(ids[row]));
    const places = (name, given) => given.map((row) => place(name, cells.value(name, row)));
    const data = [
      { type: "scatter", mode: "lines", x: places(x, line), y: places(y, line), name: "front in these two", hoverinfo: "skip", line: { color: RING, width: 2, shape: "hv" } },
      { type: "scatter", mode: "markers", x: places(x, rows), y: places(y, rows), error_x: bar(x), error_y: bar(y), customdata: rows.map((row) => ids[row]), showlegend: false,
        text: rows.map((row) => [`<b>${plain(ids[row])}</b>`, plain(cells.text("name", row)), ...[...metrics.keys()].map((name) => `${plain(name)} ${plain(cells.text(name, row))}`), ...(members.has(ids[row]) ? ["on the front"] : [])].join("<br>")),
        hovertemplate: "%{text}<extra></extra>",
        marker: { size: on.map((each) => (each ? 13 : 9)), opacity: on.map((each) => (each ? 1 : 0.6)), line: { color: on.map((each) => (each ? RING : INK)), width: on.map((each) => (each ? 2.5 : 0.6)) }, ...colours(colour, rows) } },
      { type: "scatter", mode: "markers", x: [null], y: [null], name: `front in all ${info.objectives.length} objectives`, hoverinfo: "skip", marker: { size: 12, color: "rgba(0, 0, 0, 0)", line: { color: RING, width: 2.5 } } },
    ];
    const base = structuredClone(page.data("front").layout);
    const layout = { ...base, xaxis: axis(x, rows.map((row) => cells.value(x, row))), yaxis: axis(y, rows.map((row) => cells.value(y, row))), shapes: [], annotations: [] };
    delete layout.yaxis2;
    for (const [name, own, other] of [[x, "x", "y"], [y, "y", "x"]]) {
      const { limit } = metrics.get(name);
      if (limit === null) continue;
      const value = place(name, limit);
      layout.shapes.push({ type: "line", [`${own}ref`]: own, [`${other}ref`]: `${other} domain`, [`${own}0`]: value, [`${own}1`]: value, [`${other}0`]: 0, [`${other}1`]: 1, line: { color: INK, width: 1, dash: "dash" } });
      // Outside of where points are.
      layout.annotations.push({ text: `limit ${isRate(name) ? `${Number((100 * limit).toPrecision(3))} %` : limit}`, showarrow: false, font: { color: INK }, [`${own}ref`]: own, [own]: value,
        ...(own === "x" ? { yref: "y domain", y: 1, yanchor: "bottom" } : { xref: "x domain", x: 1, xanchor: "left", textangle: 90 }) });
    }
    return { data, layout };
  };

  const said = (x, y) => {
    const all = `all ${info.objectives.length} objectives (${info.objectives.join(", ")})`;
    const beside = info.members.filter((id) => !front(x, y).some((row) => ids[row] === id)).length;
    return `The line is the front in ${x} and ${y} alone. Rings mark the front in ${all}: ${beside} of its ${info.members.length} members ${beside === 1 ? "is" : "are"} not on the line.`;
  };

  const settled = async () => {
    while (plot.getAttribute("aria-busy") === "true") await new Promise((done) => setTimeout(done, 30));
  };

  let before = first.slice(0, 2);
  const show = async () => {
    const [x, y, colour] = ["axis-x", "axis-y", "axis-colour"].map((name) => at(name).value);
    at("trade-off-said").textContent = said(x, y);
    await settled();
    const own = [x, y, colour].every((name, i) => name === first[i]);
    const { data, layout } = own ? page.data("front") : figure(x, y, colour);
    const selection = page.selection();
    for (const trace of data) {
      const own = trace.meta?.ids ?? trace.customdata;
      if (own) trace.selectedpoints = selection ? own.flatMap((id, i) => (selection.has(id) ? [i] : [])) : null;
    }
    // The old outline goes, which is nobody's selection.
    plot.dataset.changing = "";
    await Plotly.react(plot, data, { ...layout, selections: [] });
    delete plot.dataset.changing;
  };
  const changed = (own, other, old) => () => {
    if (at(own).value === at(other).value) at(other).value = before[old];
    before = [at("axis-x").value, at("axis-y").value];
    show();
  };
  at("axis-x").addEventListener("change", changed("axis-x", "axis-y", 0));
  at("axis-y").addEventListener("change", changed("axis-y", "axis-x", 1));
  at("axis-colour").addEventListener("change", show);
  at("trade-off-said").textContent = said(first[0], first[1]);
  return { front };
})();
