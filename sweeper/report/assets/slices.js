/* One setting against one metric, from the table: points, the median and the middle half at each value, the limit. */
const slices = (() => {
  const info = page.data("slices");
  const plot = document.getElementById("slice");
  if (info === null) return null;
  const { ids, column, isRate, plain, searched } = cells;
  const at = (name) => document.getElementById(name);
  const INK = "#808794";
  const LINE = "#4477aa";
  const BAND = "rgba(68, 119, 170, 0.18)";
  const LIMIT = "#d9480f";
  const MANY = 12;
  const BINS = 8;
  let drawn = false;

  const quantile = (sorted, q) => {
    const place = (sorted.length - 1) * q;
    const low = Math.floor(place);
    return sorted[low] + (place - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
  };

  /** `[x, quartile, median, quartile]` at each value of the setting, or in bins of equally many where they are many. */
  const summary = (points) => {
    const sorted = [...points].sort((a, b) => (a.x < b.x ? -1 : a.x > b.x ? 1 : 0));
    const groups = new Map();
    const many = new Set(sorted.map(({ x }) => x)).size > MANY;
    sorted.forEach((point, index) => {
      const key = many ? Math.floor((index * BINS) / sorted.length) : point.x;
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(point);
    });
    return [...groups.values()].map((group) => {
      const values = group.map(({ y }) => y).sort((a, b) => a - b);
      const x = many ? quantile(group.map((point) => point.x), 0.5) : group[0].x;
      return [x, quantile(values, 0.25), quantile(values, 0.5), quantile(values, 0.75)];
    });
  };

  /** The points of each facet, by its value; all under one name where there is none. */
  const facets = (setting, metric, facet) => {
    const found = new Map();
    for (const row of searched) {
      const [x, y] = [cells.value(setting, row), cells.value(metric, row)];
      if (x === null || y === null) continue;
      const name = facet === "" ? "" : `${facet} ${cells.text(facet, row)}`;
      if (!found.has(name)) found.set(name, []);
      found.get(name).push({ x, y, id: ids[row], row });
    }
    return new Map([...found].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true })));
  };

  const axisOf = (setting, values) => {
    const numeric = column(setting).numeric;
    const known = [...new Set(values)].sort((a, b) => a - b);
    if (!numeric) return { type: "category" };
    const log = known[0] > 0 && known.at(-1) / known[0] >= 4;
    const ticks = known.length <= MANY ? { tickvals: known, ticktext: known.map((each) => String(Number(each.toPrecision(3)))) } : {};
    return { type: log ? "log" : "linear", ...ticks };
  };

  const draw = async () => {
    drawn = true;
    const [setting, metric, facet] = ["slice-setting", "slice-metric", "slice-facet"].map((name) => at(name).value);
    const found = facets(setting, metric, facet === setting ? "" : facet);
    const limit = info.limits[metric];
    const axis = axisOf(setting, [...found.values()].flat().map(({ x }) => x));
    const data = [];
    const layout = {
      template: "none", height: 420, dragmode: "select", paper_bgcolor: "rgba(0, 0, 0, 0)", plot_bgcolor: "rgba(0, 0, 0, 0)",
      font: { color: INK, family: "system-ui, sans-serif", size: 13 }, showlegend: false, annotations: [], shapes: [],
      margin: { l: 70, r: 20, t: 40, b: 60 }, hoverlabel: { align: "left" },
      yaxis: { title: { text: metric }, tickformat: isRate(metric) ? ".0%" : "", gridcolor: "rgba(128, 135, 148, 0.25)", zeroline: false, automargin: true },
    };
    [...found].forEach(([name, points], index) => {
      const key = index === 0 ? "" : String(index + 1);
      const width = 1 / found.size;
      layout[`xaxis${key}`] = { ...axis, title: { text: setting }, domain: [index * width + (index ? 0.02 : 0), (index + 1) * width], gridcolor: "rgba(128, 135, 148, 0.25)", zeroline: false };
      const line = summary(points);
      const xs = line.map(([x]) => x);
      const place = { xaxis: `x${key}`, yaxis: "y", hoverinfo: "skip", mode: "lines" };
      data.push({ ...place, x: [...xs, ...[...xs].reverse()], y: [...line.map((each) => each[1]), ...line.map((each) => each[3]).reverse()], fill: "toself", fillcolor: BAND, line: { width: 0 } });
      data.push({ ...place, x: xs, y: line.map((each) => each[2]), line: { color: LINE, width: 2 } });
      data.push({
        xaxis: `x${key}`, yaxis: "y", mode: "markers", x: points.map(({ x }) => x), y: points.map(({ y }) => y),
        customdata: points.map(({ id }) => id), marker: { color: LINE, size: 7, opacity: 0.65, line: { color: INK, width: 0.6 } },
        text: points.map(({ row }) => plain(cells.text("name", row))), hovertemplate: "%{text}<br>%{y}<extra></extra>",
      });
      if (limit !== undefined) layout.shapes.push({ type: "line", xref: `x${key} domain`, x0: 0, x1: 1, y0: limit, y1: limit, line: { color: LIMIT, width: 1.5, dash: "dash" } });
      if (name !== "") layout.annotations.push({ text: plain(name), showarrow: false, xref: `x${key} domain`, yref: "paper", x: 0.5, y: 1.08 });
    });
    await Plotly.react(plot, data, layout, { displaylogo: false, responsive: true });
    mark();
  };

  const mark = () => {
    if (!drawn) return;
    const selection = page.selection();
    const places = plot.data.map(({ customdata }) =>
      (customdata && selection ? customdata.flatMap((id, i) => (selection.has(id) ? [i] : [])) : null));
    Plotly.restyle(plot, { selectedpoints: places });
  };

  for (const name of ["slice-setting", "slice-metric", "slice-facet"]) at(name).addEventListener("change", () => drawn && draw());
  page.onSelection(mark);
  const begin = async () => {
    if (drawn || (!window.Plotly && !(await page.plotly())) || drawn) return;
    await draw();
    cells.selects(plot);
  };
  cells.near(plot, begin);
  return { facets, summary };
})();
