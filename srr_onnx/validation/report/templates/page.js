"use strict";
// The switch between light and dark; without a choice the page follows the system.
const root = document.documentElement;
const button = document.getElementById("scheme");
const system = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.style.colorScheme || (system.matches ? "dark" : "light")) === "dark";
const nameButton = () => { button.textContent = isDark() ? "Light" : "Dark"; };
button.hidden = false;
button.addEventListener("click", () => {
  root.style.colorScheme = isDark() ? "light" : "dark";
  nameButton();
});
system.addEventListener("change", nameButton);
nameButton();

// Headings sort their table: first up, then down; numbers by data-sort, else by the text.
const key = (row, column) => {
  const cell = row.cells[column];
  return cell.dataset.sort === undefined ? cell.textContent.trim() : Number(cell.dataset.sort);
};
const compare = (a, b) => typeof a === "number" && typeof b === "number"
  ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true });
for (const heading of document.querySelectorAll("th[aria-sort]")) {
  heading.addEventListener("click", () => {
    const body = heading.closest("table").tBodies[0];
    const column = heading.cellIndex;
    const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    for (const other of heading.parentNode.cells) other.setAttribute("aria-sort", "none");
    heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    body.append(...[...body.rows].sort((a, b) => sign * compare(key(a, column), key(b, column))));
  });
}

// A search box shows the rows that contain all of its words.
for (const box of document.querySelectorAll("input[data-table]")) {
  const rows = [...document.getElementById(box.dataset.table).tBodies[0].rows];
  const count = box.closest(".finder").querySelector("output");
  box.addEventListener("input", () => {
    const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word));
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = `${words.length ? `${shown} of ` : ""}${rows.length} ${count.dataset.what}`;
  });
}

// What the pointer is over is written beside the chart's title at once.
for (const figure of document.querySelectorAll(".chart")) {
  const line = figure.querySelector("output");
  figure.addEventListener("pointerover", (event) => {
    line.textContent = event.target.querySelector?.(":scope > title")?.textContent ?? "";
  });
  figure.addEventListener("pointerleave", () => { line.textContent = ""; });
}
