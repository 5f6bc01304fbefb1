"use strict";
// A header of a sortable table becomes a button: numbers sort from the largest, names from A, and the other way round.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const key = (row, column) => {
    const data = row.cells[column].querySelector("data");
    return data ? Number(data.value) : row.cells[column].textContent;
  };
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const rows = [...body.rows];
      const numbers = rows.every((row) => typeof key(row, column) === "number");
      const before = head.getAttribute("aria-sort");
      const up = before ? before === "descending" : !numbers;
      const order = up ? 1 : -1;
      rows.sort((one, other) => {
        const a = key(one, column), b = key(other, column);
        return order * (numbers ? a - b : a.localeCompare(b, undefined, { numeric: true }));
      });
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      body.append(...rows);
    });
  });
}
