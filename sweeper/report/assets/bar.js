/* The bar at the foot of the window: how much is selected, and what is in the comparison. */
(() => {
  const at = (name) => document.getElementById(name);
  const show = () => {
    const [selection, compared] = [page.selection(), page.tray().size];
    const count = selection?.size ?? 0;
    at("bar-selected").hidden = selection === null;
    at("bar-count").textContent = `${count} selected`;
    at("bar-compare").hidden = count < 1 || count > page.limit;
    at("bar-tray").hidden = compared === 0;
    at("bar-tray-link").textContent = `${compared} to compare`;
    at("bar").hidden = selection === null && compared === 0;
  };

  const clear = () => page.select(null, "bar");

  at("bar-clear").addEventListener("click", clear);
  at("bar-compare").addEventListener("click", () => {
    for (const id of [...page.tray()]) page.toggle(id, "bar");
    for (const id of page.selection()) page.toggle(id, "bar");
    views.reveal(at("compare"));
  });
  at("bar-tray-clear").addEventListener("click", () => {
    for (const id of [...page.tray()]) page.toggle(id, "bar");
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && page.selection() !== null) clear();
  });
  page.onSelection(show);
  page.onTray(show);
})();
