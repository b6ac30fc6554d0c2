// Sorting: a button in a column's head orders the rows by data-value, or by text; empty cells stay last.
for (const button of document.querySelectorAll("table.sortable thead button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table"), body = table.tBodies[0];
    const column = [...head.parentNode.children].indexOf(head);
    const down = head.getAttribute("aria-sort") === "ascending";
    const key = (row) => row.children[column].dataset.value ?? row.children[column].textContent.trim();
    const compare = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
      return down ? -order : order;
    };
    body.append(...[...body.rows].sort(compare));
    for (const other of head.parentNode.children) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
  });
}

// Comparing: two pictures of one row of the grid, the second uncovered from the right by a slider. The pictures are
// copies of the grid's own elements, so the page holds each once.
for (const box of document.querySelectorAll(".compare")) {
  const table = document.getElementById(box.dataset.table);
  const names = [...table.tHead.rows[0].cells].slice(1).map((cell) => cell.dataset.name);
  const rows = [...table.tBodies[0].rows];
  const [pair, left, right] = box.querySelectorAll("select");
  const slider = box.querySelector("input"), stage = box.querySelector(".stage"), ends = box.querySelectorAll(".ends span");
  const fill = (select, texts, chosen) => {
    select.replaceChildren(...texts.map((text, index) => new Option(text, index, index === chosen, index === chosen)));
  };
  const reveal = () => {
    stage.style.setProperty("--at", `${slider.value}%`);
    slider.setAttribute("aria-valuetext", `${slider.value} % ${names[left.value]}, the rest ${names[right.value]}`);
  };
  const show = () => {
    const cells = rows[pair.value].cells;
    stage.replaceChildren(...[left, right].map((select) => {
      const picture = cells[Number(select.value) + 1].querySelector("img, svg");
      return picture ? picture.cloneNode(true) : Object.assign(document.createElement("span"), { textContent: "no picture" });
    }));
    [left, right].forEach((select, index) => { ends[index].textContent = names[select.value]; });
    reveal();
  };
  // Not innerText: the grid is not drawn, and so has none, until a reader comes near it.
  const words = (cell) => [...cell.childNodes].map((node) => node.textContent.trim()).filter(Boolean).join(" ");
  fill(pair, rows.map((row) => words(row.cells[0])), 0);
  fill(left, names, names.indexOf("Target"));
  fill(right, names, names.indexOf("Target") + 1 < names.length ? names.indexOf("Target") + 1 : 0);
  for (const select of [pair, left, right]) select.addEventListener("change", show);
  slider.addEventListener("input", reveal);
  box.hidden = false;
  show();
}

// Charts: a box of the key takes a method, the curves on val or the intervals away; resting on a method fades the others.
for (const key of document.querySelectorAll(".key")) {
  const charts = document.getElementById(key.dataset.charts), methods = [...key.querySelectorAll("label[data-variant]")];
  const groups = [...charts.querySelectorAll("[data-variant]")];
  const shown = (name) => key.querySelector(`input[name="${name}"]`).checked;
  const draw = () => {
    for (const part of ["val", "intervals"]) charts.classList.toggle(`no-${part}`, !shown(part));
    for (const group of groups) group.classList.toggle("off", !shown(group.dataset.variant));
  };
  for (const control of key.querySelectorAll("[hidden]")) control.hidden = false;
  key.addEventListener("change", draw);
  for (const button of key.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      for (const method of methods) method.querySelector("input").checked = button.dataset.methods === "all";
      draw();
    });
  }
  for (const method of methods) {
    const light = (on) => {
      charts.classList.toggle("dim", on);
      for (const group of groups) group.classList.toggle("lit", on && group.dataset.variant === method.dataset.variant);
    };
    method.addEventListener("pointerenter", () => light(true));
    method.addEventListener("pointerleave", () => light(false));
  }
  draw();
}
