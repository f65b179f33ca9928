"use strict";
// Filters: an item stays while every chosen facet it has agrees and it contains the text.
const form = document.querySelector("form.filters");
const items = [...document.querySelectorAll(".item")];

function matches(item, text, chosen) {
  const agrees = chosen.every(([name, value]) => !(name in item.dataset) || item.dataset[name] === value);
  return agrees && (text === "" || item.textContent.toLowerCase().includes(text));
}

function apply() {
  const data = [...new FormData(form)];
  const text = data.find(([name]) => name === "text")[1].trim().toLowerCase();
  const chosen = data.filter(([name, value]) => name !== "text" && value !== "");
  let shown = 0;
  for (const item of items) {
    item.hidden = !matches(item, text, chosen);
    shown += item.hidden ? 0 : 1;
  }
  for (const section of document.querySelectorAll("section")) {
    const own = [...section.querySelectorAll(".item")];
    section.querySelector(".none").hidden = own.length === 0 || own.some((item) => !item.hidden);
  }
  const all = text === "" && chosen.length === 0;
  form.querySelector("[role=status]").textContent = all ? `${items.length} shown` : `${shown} of ${items.length} shown`;
}

if (form) {
  form.hidden = false;
  for (const kind of ["input", "change"]) form.addEventListener(kind, apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  apply();
}
