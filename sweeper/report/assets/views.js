/* The five views, one of which is shown. The address says which, what is selected, compared and filtered, so that
   it can be sent to somebody else: `#table?filter=lr<1e-3&selected=ID,ID&compared=ID`, or the id of a section. */
const views = (() => {
  const all = Array.from(document.querySelectorAll(".view"));
  const links = Array.from(document.querySelectorAll("#views a"));
  const filter = document.getElementById("filter");
  const nameOf = (view) => view.id.replace("view-", "");
  let shown = null;
  let restoring = false;

  const show = (view) => {
    shown = view;
    for (const other of all) other.hidden = other !== view;
    for (const link of links) {
      if (link.dataset.view === undefined) continue;
      const own = link.dataset.view === nameOf(view);
      link.closest("li").classList.toggle("open", own);
      if (own) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
  };

  const address = () => {
    const parts = [
      ["filter", filter.value],
      ["selected", [...(page.selection() ?? [])].join(",")],
      ["compared", [...page.tray()].join(",")],
    ].filter(([, value]) => value !== "");
    const query = parts.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
    return `#${nameOf(shown)}${query && "?"}${query}`;
  };

  /** Bring the address up to date. A page without an address of its own, as in a frame, has none to change. */
  const write = () => {
    if (restoring || shown === null) return;
    try {
      history.replaceState(null, "", address());
    } catch {
      return;
    }
  };

  /** Show the view that holds an element. */
  const open = (node) => {
    const view = node.closest(".view");
    if (view !== null && view !== shown) show(view);
  };
  /** Show it and the element, or the top of the page for a view itself. */
  const reveal = (node) => {
    open(node);
    if (node.classList.contains("view")) scrollTo({ top: 0, behavior: "instant" });
    else node.scrollIntoView();
  };

  const restore = (query) => {
    const given = new URLSearchParams(query);
    const known = new Set(page.data("configurations").ids);
    const listed = (name) => (given.get(name) ?? "").split(",").filter((id) => known.has(id));
    restoring = true;
    if (given.has("filter")) {
      filter.value = given.get("filter");
      filter.dispatchEvent(new Event("input"));
    }
    if (given.has("selected")) page.select(listed("selected"), "address");
    for (const id of listed("compared")) if (!page.tray().has(id)) page.toggle(id, "address");
    restoring = false;
  };

  const follow = () => {
    const [name, query] = decodeURI(location.hash.slice(1)).split(/\?(.*)/s);
    const node = document.getElementById(`view-${name}`) ?? document.getElementById(name);
    if (node?.closest(".view")) reveal(node);
    else if (shown === null) show(all[0]);
    if (query) restore(location.hash.slice(location.hash.indexOf("?") + 1));
  };

  links.forEach((link) => link.addEventListener("click", (event) => {
    event.preventDefault();
    const view = link.dataset.view;
    reveal(document.getElementById(view === undefined ? link.hash.slice(1) : `view-${view}`));
    write();
  }));
  filter.addEventListener("input", write);
  page.onSelection(write);
  page.onTray(write);
  addEventListener("hashchange", follow);
  addEventListener("DOMContentLoaded", follow);
  // Paper gets all views; a figure cannot be drawn in one that is hidden.
  const whole = () => all.forEach((view) => { view.hidden = false; });
  addEventListener("beforeprint", whole);
  addEventListener("afterprint", () => show(shown));
  matchMedia("print").addEventListener("change", ({ matches }) => (matches ? whole() : show(shown)));
  show(all[0]);
  return { open, reveal };
})();
