/* The selection in every figure: points by click, box and lasso; lines of parallel coordinates by brushing. */
(() => {
  if (typeof Plotly === "undefined") {
    // A page whose plotly.js lies beside it was moved without that file.
    for (const box of document.querySelectorAll(".figure")) {
      box.textContent = "This figure needs plotly.min.js beside the page; the tables need nothing.";
    }
    return;
  }
  const plots = Array.from(document.querySelectorAll(".js-plotly-plot"));
  const known = new Set((page.data("configurations") ?? { ids: [] }).ids);
  const busy = new Set();
  const whole = new Map();

  const idOf = (value) => {
    const id = Array.isArray(value) ? value[0] : value;
    return known.has(id) ? id : null;
  };
  const idsOf = (trace) => (Array.isArray(trace.customdata) ? trace.customdata.map(idOf) : null);
  const isParallel = (trace) => trace.type === "parcoords";

  /** Run what changes a figure without hearing it as somebody's brush. */
  const quietly = (plot, change) => {
    busy.add(plot);
    return Promise.resolve(change()).finally(() => busy.delete(plot));
  };

  const within = (value, ranges) => ranges.some(([low, high]) => low <= value && value <= high);

  const brushed = (plot) => {
    const found = [];
    let brushes = 0;
    plot.data.forEach((trace, index) => {
      if (!isParallel(trace)) return;
      const ids = idsOf(trace) ?? [];
      const limits = plot._fullData[index].dimensions
        .filter((dimension) => dimension.visible !== false && dimension.constraintrange?.length)
        .map(({ values, constraintrange: range }) => [values, Array.isArray(range[0]) ? range : [range]]);
      brushes += limits.length;
      ids.forEach((id, row) => {
        if (id !== null && limits.every(([values, ranges]) => within(values[row], ranges))) found.push(id);
      });
    });
    return brushes > 0 ? found : [];
  };

  const watch = (plot) => {
    plot.on("plotly_click", ({ points, event }) => {
      const id = idOf(points[0]?.customdata);
      if (id === null) return;
      const more = event && (event.shiftKey || event.ctrlKey || event.metaKey);
      const ids = new Set(more ? page.selection() : []);
      if (more && ids.has(id)) ids.delete(id);
      else ids.add(id);
      page.select(ids, plot.id);
    });
    plot.on("plotly_selected", (event) => {
      if (busy.has(plot) || !event) return;
      page.select(event.points.map((point) => idOf(point.customdata)).filter((id) => id !== null), plot.id);
    });
    plot.on("plotly_deselect", () => {
      if (!busy.has(plot)) page.select([], plot.id);
    });
    if (plot.data.some(isParallel)) {
      plot.on("plotly_restyle", () => {
        if (!busy.has(plot)) page.select(brushed(plot), plot.id);
      });
    }
  };

  /** The lines of parallel coordinates cannot be marked: those of other configurations are taken away. */
  const thin = (plot, index, selection) => {
    const trace = plot.data[index];
    const full = plot._fullData[index];
    const key = `${plot.id}/${index}`;
    if (!whole.has(key)) {
      // Nothing was taken away yet, so there is nothing to give back.
      if (selection.size === 0 && !full.dimensions.some((each) => each.constraintrange?.length)) return null;
      whole.set(key, {
        ids: idsOf(trace) ?? [],
        customdata: trace.customdata,
        colour: full.line.color,
        limits: [full.line.cmin, full.line.cmax],
        dimensions: full.dimensions.map((dimension) => ({
          values: Array.from(dimension.values ?? []),
          range: dimension.range ?? null,
        })),
      });
    }
    const kept = whole.get(key);
    const every = selection.size === 0;
    const pick = (values) => values.filter((_, row) => every || selection.has(kept.ids[row]));
    const change = { customdata: [pick(kept.customdata)] };
    kept.dimensions.forEach(({ values, range }, i) => {
      const span = values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]);
      change[`dimensions[${i}].values`] = [pick(values)];
      change[`dimensions[${i}].range`] = [range ?? span];
      change[`dimensions[${i}].constraintrange`] = [null];
    });
    if (typeof kept.colour !== "string" && kept.colour?.length) {
      change["line.color"] = [pick(Array.from(kept.colour))];
      [change["line.cmin"], change["line.cmax"]] = kept.limits;
    }
    return Plotly.restyle(plot, change, [index]);
  };

  const follow = (plot, selection, source) => {
    const parallel = plot.data.flatMap((trace, index) => (isParallel(trace) ? [index] : []));
    if (parallel.length && source !== plot.id) {
      quietly(plot, () => Promise.all(parallel.map((index) => thin(plot, index, selection))));
    }
    const marked = plot.data.flatMap((trace, index) => {
      const ids = isParallel(trace) || trace.type === "heatmap" ? null : idsOf(trace);
      return ids?.some((id) => id !== null) ? [[index, ids]] : [];
    });
    if (marked.length === 0) return;
    const places = marked.map(([, ids]) =>
      selection.size === 0 ? null : ids.flatMap((id, place) => (selection.has(id) ? [place] : [])),
    );
    const indices = marked.map(([index]) => index);
    // A box or lasso also marks what is no configuration, such as the line of the front.
    plot.data.forEach((trace, index) => {
      if (!trace.selectedpoints || indices.includes(index)) return;
      indices.push(index);
      places.push(null);
    });
    quietly(plot, async () => {
      // An outline that is still there would select its points again.
      if (source !== plot.id && plot.layout.selections?.length) await Plotly.relayout(plot, { selections: [] });
      await Plotly.restyle(plot, { selectedpoints: places }, indices);
    });
  };

  plots.forEach(watch);
  page.onSelection((selection, source) => plots.forEach((plot) => follow(plot, selection, source)));

  // Plotly looks at the window only; a figure must also follow its own column.
  const observer = new ResizeObserver((entries) => {
    for (const entry of entries) {
      const plot = entry.target.querySelector(".js-plotly-plot");
      if (plot && entry.contentRect.width > 0) Plotly.Plots.resize(plot);
    }
  });
  document.querySelectorAll(".figure").forEach((box) => observer.observe(box));
})();
