"use strict";
// Turn the headers of sortable tables into buttons. The first click sorts numbers in descending order and names in
// ascending order. Further clicks reverse the order.
for (const table of document.querySelectorAll("table.sortable")) {
  const headers = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  const key = (row, column) => {
    const data = row.cells[column].querySelector("data");
    return data ? Number(data.value) : row.cells[column].textContent;
  };
  headers.forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const rows = [...body.rows];
      const numeric = rows.every((row) => typeof key(row, column) === "number");
      const previous = header.getAttribute("aria-sort");
      const ascending = previous ? previous === "descending" : !numeric;
      const sign = ascending ? 1 : -1;
      rows.sort((first, second) => {
        const a = key(first, column), b = key(second, column);
        return sign * (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true }));
      });
      for (const other of headers) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      body.append(...rows);
    });
  });
}
