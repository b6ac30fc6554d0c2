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

// Marks and definitions: what one stands for appears while it is pointed at or has the focus, and after a tap. The words
// are those of the list that it leads to.
const tip = Object.assign(document.createElement("div"), { className: "tip", hidden: true, ariaHidden: "true" });
let explained = null, leaving = 0, tapped = false;
const place = () => {
  if (!explained) return;
  const at = explained.getBoundingClientRect(), below = at.bottom + 6 + tip.offsetHeight < innerHeight;
  tip.style.left = `${Math.max(8, Math.min(at.left, document.documentElement.clientWidth - tip.offsetWidth - 8))}px`;
  tip.style.top = `${below ? at.bottom + 6 : at.top - tip.offsetHeight - 6}px`;
  tip.style.visibility = at.bottom < 0 || at.top > innerHeight ? "hidden" : "visible";
};
const stay = () => clearTimeout(leaving);
const hide = () => { stay(); tip.hidden = true; explained = null; };
const leave = () => { stay(); leaving = setTimeout(hide, 150); };  // time to move the pointer onto it
const explain = (link) => {
  stay();
  tip.replaceChildren(...link.getAttribute("aria-describedby").split(" ").map((id) => {
    const text = document.getElementById(id), line = document.createElement("p"), name = document.createElement("b");
    name.textContent = text.previousElementSibling.textContent;
    line.append(name, " ", ...text.cloneNode(true).childNodes);
    return line;
  }));
  tip.hidden = false;
  explained = link;
  place();
};
document.body.append(tip);
tip.addEventListener("pointerenter", stay);
tip.addEventListener("pointerleave", leave);
for (const link of document.querySelectorAll("a[aria-describedby]")) {
  link.addEventListener("pointerenter", () => explain(link));
  link.addEventListener("pointerleave", () => link !== document.activeElement && leave());
  link.addEventListener("focus", () => explain(link));
  link.addEventListener("blur", hide);
  link.addEventListener("click", (event) => {
    if (!tapped) return hide();
    event.preventDefault();  // a finger cannot rest on it: a tap explains
    explain(link);
  });
}
addEventListener("pointerdown", (event) => {
  tapped = event.pointerType === "touch";
  if (explained && !explained.contains(event.target) && !tip.contains(event.target)) hide();
}, true);
addEventListener("keydown", (event) => {
  tapped = false;
  if (event.key === "Escape") hide();
});
addEventListener("scroll", place, true);
addEventListener("resize", place);
