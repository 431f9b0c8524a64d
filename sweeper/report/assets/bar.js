/* The bar at the foot of the window: how much is selected, and what is in the comparison. */
(() => {
  const at = (name) => document.getElementById(name);
  const selected = () => page.selection().size;

  const show = () => {
    const [count, compared] = [selected(), page.tray().size];
    at("bar-selected").hidden = count === 0;
    at("bar-count").textContent = `${count} selected`;
    at("bar-compare").hidden = count < 1 || count > page.limit;
    at("bar-tray").hidden = compared === 0;
    at("bar-tray-link").textContent = `${compared} to compare`;
    at("bar").hidden = count === 0 && compared === 0;
  };

  const clear = () => page.select([], "bar");

  at("bar-clear").addEventListener("click", clear);
  at("bar-compare").addEventListener("click", () => {
    for (const id of [...page.tray()]) page.toggle(id, "bar");
    for (const id of page.selection()) page.toggle(id, "bar");
    at("compare").scrollIntoView();
  });
  at("bar-tray-clear").addEventListener("click", () => {
    for (const id of [...page.tray()]) page.toggle(id, "bar");
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && selected() > 0) clear();
  });
  page.onSelection(show);
  page.onTray(show);
})();
