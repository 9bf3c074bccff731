// A click on the head of a column sorts its table, from the highest on; another turns it around.
document.addEventListener("click", (event) => {
  const head = event.target.closest("th");
  const table = head && head.closest("table");
  if (!table || !table.tBodies.length) return;
  const column = [...head.parentNode.children].indexOf(head);
  const up = head.dataset.sorted === "down";
  const worth = (row) => {
    const text = row.cells[column].textContent.trim();
    const number = Number.parseFloat(text.replace(/,/g, "").replace("\u2212", "-"));
    return Number.isNaN(number) ? text : number;
  };
  const before = (a, b) => {
    const [x, y] = [worth(a), worth(b)];
    if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
    const order = typeof x === "number" ? y - x : x.localeCompare(y);
    return up ? -order : order;
  };
  for (const other of head.parentNode.children) delete other.dataset.sorted;
  head.dataset.sorted = up ? "up" : "down";
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(before));
});
