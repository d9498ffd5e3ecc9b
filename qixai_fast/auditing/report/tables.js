// Tables that can be sorted and filtered. Without this script they are complete, in the report's own order.
"use strict";
{
  const MISSING = new Set(["", "–"]);

  // A cell as a number where it is one: "≤ 0.0042", "1,927", "50 %", "none" of an error bound.
  const number = (text) => {
    const match = /^[≤>±]?\s*([+-]?[\d,]*\.?\d+(?:e[+-]?\d+)?)(?:\s*%)?$/i.exec(text);
    return match ? Number(match[1].replaceAll(",", "")) : NaN;
  };

  const textOf = (row, column) => row.cells[column].textContent.trim();

  const sort = (table, column, descending) => {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => {
      const text = textOf(row, column);
      return { row, text, value: number(text), missing: MISSING.has(text) };
    });
    const numeric = rows.some((entry) => !Number.isNaN(entry.value));
    const order = new Intl.Collator("en", { numeric: true });
    rows.sort((a, b) => {
      // What has no value comes last in either direction.
      if (a.missing || b.missing) return a.missing - b.missing;
      const noNumber = Number.isNaN(a.value) - Number.isNaN(b.value);
      if (numeric && noNumber) return noNumber;
      const both = numeric && !Number.isNaN(a.value);
      const ascending = both ? a.value - b.value : order.compare(a.text, b.text);
      return descending ? -ascending : ascending;
    });
    body.append(...rows.map((entry) => entry.row));
  };

  const makeSortable = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const label = head.querySelector("span");
      const button = document.createElement("button");
      button.type = "button";
      label.replaceWith(button);
      button.append(label);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        // Numbers are looked at from the largest down, names from A.
        const first = head.classList.contains("text") ? "ascending" : "descending";
        const other = first === "ascending" ? "descending" : "ascending";
        const next = head.getAttribute("aria-sort") === first ? other : first;
        heads.forEach((each) => each.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", next);
        sort(table, column, next === "descending");
      });
    });
  };

  const makeFilter = (table) => {
    const rows = [...table.tBodies[0].rows];
    if (rows.length < 5) return;
    const box = document.createElement("div");
    box.className = "filter";
    const label = document.createElement("label");
    label.textContent = "Filter";
    const input = document.createElement("input");
    input.type = "search";
    input.placeholder = "names, map numbers";
    label.append(input);
    const status = document.createElement("span");
    status.setAttribute("role", "status");
    box.append(label);
    const faint = document.createElement("input");
    faint.type = "checkbox";
    if (table.querySelector("tr.faint")) {
      const only = document.createElement("label");
      only.append(faint, " without grey rows");
      box.append(only);
    }
    box.append(status);
    // Only what names a row is searched, and numbers as a whole: "5" is map 5, not 0.555.
    const names = rows.map((row) =>
      [...row.cells].filter((cell, i) => i === 0 || cell.classList.contains("text"))
        .map((cell) => cell.textContent).join(" ").toLowerCase());
    const words = names.map((name) => new Set(name.split(/[\s–]+/)));
    const fits = (index, word) =>
      /^\d+$/.test(word) ? words[index].has(word) : names[index].includes(word);
    const apply = () => {
      const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, index) => {
        const grey = faint.checked && row.classList.contains("faint");
        row.hidden = grey || !wanted.every((word) => fits(index, word));
        shown += !row.hidden;
      });
      status.textContent = shown === rows.length ? "" : `${shown} of ${rows.length} rows`;
    };
    input.addEventListener("input", apply);
    faint.addEventListener("change", apply);
    table.closest(".scroll").before(box);
  };

  document.querySelectorAll("table[data-sort]").forEach(makeSortable);
  document.querySelectorAll("table[data-filter]").forEach(makeFilter);
}
