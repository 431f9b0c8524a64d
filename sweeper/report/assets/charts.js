/* Figures, drawn when they come near the window, and the selection in each: points by click, box and lasso;
   lines of parallel coordinates by brushing. One that is not drawn, or shows another selection, is `aria-busy`. */
(() => {
  const plots = Array.from(document.querySelectorAll(".plotly-graph-div"));
  const known = new Set((page.data("configurations") ?? { ids: [] }).ids);
  /* Figures near the window; all of them on paper, and where nothing tells. */
  const watched = "IntersectionObserver" in window;
  const near = new Set(watched ? [] : plots);
  /* What a drawn figure shows: the selection, and its width in pixels. */
  const shown = new Map();
  const busy = new Set();
  const whole = new Map();
  let asked = "";

  const idOf = (value) => {
    const id = Array.isArray(value) ? value[0] : value;
    return known.has(id) ? id : null;
  };
  const idsOf = (trace) => (Array.isArray(trace.customdata) ? trace.customdata.map(idOf) : null);
  const isParallel = (trace) => trace.type === "parcoords";

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
    return brushes > 0 ? found : null;
  };

  /** Whether what a figure tells is somebody's doing. */
  const mine = (plot) => !busy.has(plot) && plot.dataset.changing === undefined;

  const watch = (plot) => {
    plot.on("plotly_click", ({ points, event }) => {
      const id = idOf(points[0]?.customdata);
      if (id === null) return;
      const more = event && (event.shiftKey || event.ctrlKey || event.metaKey);
      const ids = new Set(more ? page.selection() ?? [] : []);
      if (more && ids.has(id)) ids.delete(id);
      else ids.add(id);
      page.select(ids.size ? ids : null, plot.id);
    });
    plot.on("plotly_selected", (event) => {
      if (!mine(plot) || !event) return;
      page.select(event.points.map((point) => idOf(point.customdata)).filter((id) => id !== null), plot.id);
    });
    plot.on("plotly_deselect", () => {
      if (mine(plot)) page.select(null, plot.id);
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
      if (selection === null && !full.dimensions.some((each) => each.constraintrange?.length)) return null;
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
    const pick = (values) => values.filter((_, row) => selection?.has(kept.ids[row]) ?? true);
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

  const mark = async (plot, selection, own) => {
    const parallel = plot.data.flatMap((trace, index) => (isParallel(trace) ? [index] : []));
    if (!own) for (const index of parallel) await thin(plot, index, selection);
    const [indices, places] = [[], []];
    plot.data.forEach((trace, index) => {
      // A cross over a point follows it, and is not selected itself.
      const ids = isParallel(trace) ? null : trace.meta?.ids ?? idsOf(trace);
      const holds = ids?.some((id) => id !== null);
      // A box or lasso also marks what is no configuration, such as the line of the front.
      const place = holds && selection ? ids.flatMap((id, i) => (selection.has(id) ? [i] : [])) : null;
      if (JSON.stringify(place) === JSON.stringify(trace.selectedpoints ?? null)) return;
      indices.push(index);
      places.push(place);
    });
    // An outline that is still there would select its points again.
    if (!own && plot.layout.selections?.length) await Plotly.relayout(plot, { selections: [] });
    if (indices.length) await Plotly.restyle(plot, { selectedpoints: places }, indices);
  };

  /** Draw a figure that is needed, or bring it up to date, without hearing that as somebody's brush. */
  const refresh = async (plot) => {
    if (busy.has(plot)) return;
    busy.add(plot);
    try {
      if (!shown.has(plot)) {
        // What is there already is drawn at once: paper does not wait.
        if (!window.Plotly && !(await page.plotly())) return;
        const { data, layout } = page.data(plot.id) ?? await page.load(plot.id);
        shown.set(plot, { selection: null, width: plot.clientWidth });
        await Plotly.newPlot(plot, data, layout, { displaylogo: false });
        watch(plot);
      }
      const now = shown.get(plot);
      if (now.width !== plot.clientWidth && plot.clientWidth > 0) {
        now.width = plot.clientWidth;
        await Plotly.Plots.resize(plot);
      }
      while (now.selection !== page.selection()) {
        now.selection = page.selection();
        await mark(plot, now.selection, asked === plot.id);
      }
    } finally {
      busy.delete(plot);
      plot.setAttribute("aria-busy", "false");
    }
  };

  const refreshNear = async () => {
    for (const plot of plots.filter((each) => near.has(each) && each.getAttribute("aria-busy") === "true")) {
      await refresh(plot);
      // The window may answer between two figures.
      await new Promise((done) => setTimeout(done));
    }
  };
  let timer = 0;
  const soon = (delay) => {
    clearTimeout(timer);
    timer = setTimeout(refreshNear, delay);
  };

  page.onSelection((_, source) => {
    asked = source;
    for (const plot of plots) plot.setAttribute("aria-busy", "true");
    soon(0);
  });

  if (watched) {
    // A jump to a section passes others: what is only passed is not drawn.
    const sight = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) near[isIntersecting ? "add" : "delete"](target);
      soon(100);
    }, { rootMargin: "50% 0px" });
    plots.forEach((plot) => sight.observe(plot));
  }
  // Plotly looks at the window only; a figure must also follow its own column.
  const fit = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (shown.has(target) && shown.get(target).width !== target.clientWidth) target.setAttribute("aria-busy", "true");
    }
    soon(100);
  });
  plots.forEach((plot) => fit.observe(plot));

  const drawAll = () => plots.forEach(refresh);
  addEventListener("beforeprint", drawAll);
  matchMedia("print").addEventListener("change", ({ matches }) => matches && drawAll());
  soon(0);
  if (document.getElementById("plotly-source") === null) page.plotly();
  // After the first view is drawn, so that a figure, or paper, finds all it needs.
  const ready = async () => {
    if (await page.plotly()) for (const plot of plots) await page.load(plot.id);
  };
  if ("requestIdleCallback" in window) addEventListener("load", () => requestIdleCallback(ready, { timeout: 2000 }));
  else addEventListener("load", () => setTimeout(ready, 500));
})();
