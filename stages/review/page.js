"use strict";
// The table of images: sorting, filtering, and panels that open on click.
const table = document.getElementById("images");
if (table) {
  const bodies = Array.from(table.tBodies);
  const search = document.getElementById("search");
  const became = document.getElementById("became");
  const className = document.getElementById("class");
  const shown = document.getElementById("shown");

  const toggle = (body, open) => {
    const button = body.querySelector(".open");
    if (!button) return;
    const panel = body.querySelector(".panel");
    const expand = open === undefined ? panel.hidden : open;
    if (expand && panel.dataset.copy) {
      const frames = document.querySelector(`#${panel.dataset.copy} .frames`);
      panel.querySelector("td").append(frames.cloneNode(true));
      delete panel.dataset.copy;
    }
    panel.hidden = !expand;
    button.setAttribute("aria-expanded", String(expand));
  };

  const filter = () => {
    const text = search.value.trim().toLowerCase();
    let count = 0;
    for (const body of bodies) {
      const fits =
        body.dataset.id.toLowerCase().includes(text) &&
        (!became.value || body.dataset.became === became.value) &&
        (!className.value || body.dataset.class === className.value);
      body.hidden = !fits;
      count += fits;
    }
    shown.textContent = `${count} of ${bodies.length} images`;
  };

  const sort = (header) => {
    const column = header.cellIndex;
    const numeric = header.classList.contains("num");
    const ascending = header.getAttribute("aria-sort") !== "ascending";
    for (const other of header.parentNode.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const key = (body) => body.rows[0].cells[column].dataset.key;
    const sign = ascending ? 1 : -1;
    bodies.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      // What has no number stands last either way.
      if ((x === "") !== (y === "")) return x === "" ? 1 : -1;
      const order = numeric ? Number(x) - Number(y) : Number(x) - Number(y) || (x < y ? -1 : x > y ? 1 : 0);
      return sign * order || Number(a.dataset.place) - Number(b.dataset.place);
    });
    table.append(...bodies);
  };

  for (const header of table.tHead.rows[0].cells) {
    header.querySelector("button").addEventListener("click", () => sort(header));
  }
  for (const body of bodies) {
    body.rows[0].addEventListener("click", () => toggle(body));
  }
  search.addEventListener("input", filter);
  became.addEventListener("change", filter);
  className.addEventListener("change", filter);

  const follow = () => {
    const body = document.getElementById(location.hash.slice(1));
    if (!body || body.tagName !== "TBODY") return;
    if (body.hidden) {
      search.value = became.value = className.value = "";
      filter();
    }
    toggle(body, true);
    body.scrollIntoView({ block: "nearest" });
    (body.querySelector(".open") || body).focus({ preventScroll: true });
  };
  window.addEventListener("hashchange", follow);
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#image-']");
    // The same link twice changes no hash.
    const href = link && link.getAttribute("href");
    if (href && href === location.hash) follow();
  });
  filter();
  follow();
}
