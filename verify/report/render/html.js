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
  const filtered = text !== "" || chosen.length > 0;
  for (const group of document.querySelectorAll(".cause:not(.item)")) {
    const some = [...group.querySelectorAll(".item")].some((item) => !item.hidden);
    group.hidden = !some;
    if (filtered) group.querySelector(".places").open = some;
  }
  for (const group of document.querySelectorAll(".exposure")) {
    group.hidden = [...group.querySelectorAll(".item")].every((item) => item.hidden);
  }
  for (const rest of document.querySelectorAll("details.rest")) {
    if (filtered) rest.open = true;
  }
  for (const section of document.querySelectorAll("section")) {
    const own = [...section.querySelectorAll(".item")];
    const none = section.querySelector(".none");
    if (none) none.hidden = own.length === 0 || own.some((item) => !item.hidden);
  }
  const all = text === "" && chosen.length === 0;
  form.querySelector("[role=status]").textContent = all ? `${items.length} shown` : `${shown} of ${items.length} shown`;
}

// The address says what is chosen, `#?model=oak&text=sum`, so that a view can be sent to somebody.
function remember() {
  const chosen = new URLSearchParams();
  for (const field of form.querySelectorAll("label")) {
    const value = field.lastElementChild.value.trim();
    if (value !== "") chosen.set(field.firstElementChild.textContent, value);
  }
  const state = chosen.toString();
  if (state !== "" || location.hash.startsWith("#?")) {
    history.replaceState(null, "", state === "" ? location.pathname : `#?${state}`);
  }
}

function changed() {
  apply();
  remember();
}

function recall() {
  if (!location.hash.startsWith("#?")) return;
  const chosen = new URLSearchParams(location.hash.slice(2));
  for (const field of form.querySelectorAll("label")) {
    field.lastElementChild.value = chosen.get(field.firstElementChild.textContent) ?? "";
  }
}

// A link to something that is folded away opens what holds it.
function reveal() {
  const target = document.getElementById(location.hash.slice(1));
  if (target === null) return;
  for (let e = target; e; e = e.parentElement) if (e.matches("details")) e.open = true;
  target.scrollIntoView();
}

addEventListener("hashchange", reveal);

if (form) {
  form.hidden = false;
  for (const kind of ["input", "change"]) form.addEventListener(kind, changed);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(changed));
  addEventListener("hashchange", () => {
    recall();
    apply();
  });
  recall();
  apply();
}
reveal();
