/* Another limit or confidence: what the search would recommend then. All pairs were worked out when the page was made,
   by the rules of the command line; nothing is decided here. */
(() => {
  const { make } = page;
  const data = page.data("choices");
  if (data === null) return;
  const at = (name) => document.getElementById(name);
  const percent = (value) => `${Number((100 * value).toPrecision(4))} %`;
  const choice = () => data.choices[Number(at("what-if-limit").value) * data.confidences.length + Number(at("what-if-confidence").value)];
  const own = data.choices[data.limits.indexOf(data.limit) * data.confidences.length + data.confidences.indexOf(data.confidence)];

  const link = (id) => make("button", { type: "button", "data-config": id, title: id }, data.said[id][0]);

  const show = () => {
    const [chosen, front] = choice();
    at("what-if-shown").textContent = percent(data.limits[Number(at("what-if-limit").value)]);
    const count = `${front.length} configuration${front.length === 1 ? "" : "s"} on the front`;
    const same = chosen === own[0] ? "As now, by the search alone: " : "By the search alone: ";
    const parts = chosen === null ? [`Nothing could be recommended by the search alone; ${count}.`]
      : [same, link(chosen), ` ${data.safety === "unsafe_rate" ? `answers ${data.said[chosen][1]} unsafely` : `has ${data.safety} ${data.said[chosen][1]}`}, ${data.utility} ${data.said[chosen][2]}; ${count}.`];
    if (front.length) {
      const mark = make("button", { type: "button", class: "mark-front" }, "show this front");
      mark.addEventListener("click", () => {
        page.select(front, "what-if");
        views.reveal(document.getElementById("trade-off"));
      });
      parts.push(" ", mark);
    }
    at("what-if-answer").replaceChildren(...parts);
  };

  for (const name of ["what-if-limit", "what-if-confidence"]) at(name).addEventListener("input", show);
  show();
})();
