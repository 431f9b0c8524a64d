/* The table of configurations as values, for the charts that are made in the page. */
const cells = (() => {
  const { ids, columns } = page.data("configurations");
  const column = (name) => columns.find((each) => each.name === name);
  const cell = (name, row) => column(name).cells[column(name).at[row]];
  const value = (name, row) => cell(name, row)[1];
  const text = (name, row) => cell(name, row)[0];
  const searched = ids.map((_, row) => row).filter((row) => value("role", row) === "candidate");
  return {
    ids,
    column,
    cell,
    value,
    text,
    /** The rows of what the sweep searched. */
    searched,
    isRate: (name) => name.split("/")[0].endsWith("_rate"),
    /** Plotly reads texts as markup. */
    plain: (given) => given.replaceAll("&", "&amp;").replaceAll("<", "&lt;"),
    /** Call `begin` when a node comes near the window, and before paper. */
    near(node, begin) {
      if ("IntersectionObserver" in window) {
        new IntersectionObserver((entries) => entries.some(({ isIntersecting }) => isIntersecting) && begin(), { rootMargin: "50% 0px" }).observe(node);
      } else begin();
      addEventListener("beforeprint", begin);
    },
    /** Clicks and boxes in a drawn plot select. */
    selects(plot) {
      plot.on("plotly_click", ({ points }) => points[0]?.customdata && page.select([points[0].customdata], plot.id));
      plot.on("plotly_selected", (event) => event && page.select(event.points.map(({ customdata }) => customdata).filter(Boolean), plot.id));
    },
  };
})();
