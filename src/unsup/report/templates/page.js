"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  // Light and dark: the system's choice until the reader changes it.
  const toggle = document.getElementById("theme");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const stored = (value) => {
    try {
      if (value) localStorage.setItem("unsup-theme", value);
      return localStorage.getItem("unsup-theme");
    } catch {
      return value || null; // no storage for pages of this address
    }
  };
  const show = (theme) => {
    if (theme) root.dataset.theme = theme;
    const isDark = (theme || (dark.matches ? "dark" : "light")) === "dark";
    toggle.textContent = isDark ? "☀ Light" : "☾ Dark";
    toggle.setAttribute("aria-label", isDark ? "Light: switch to light colours" : "Dark: switch to dark colours");
  };
  show(stored());
  dark.addEventListener("change", () => show(root.dataset.theme));
  toggle.addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    show(stored(now === "dark" ? "light" : "dark") || (now === "dark" ? "light" : "dark"));
  });

  // Tables: a heading sorts by its column, missing figures last; likelihoods stay grouped by kind.
  const said = document.getElementById("sorted");
  for (const table of document.querySelectorAll("table.measures")) {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    const read = (row, index, numeric) => {
      const cell = row.cells[index];
      if (!numeric) return cell.querySelector("a").textContent.toLowerCase();
      return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
    };
    heads.forEach((head, index) => {
      const name = head.querySelector(".name");
      const button = document.createElement("button");
      button.type = "button";
      name.before(button);
      button.append(name);
      const numeric = head.dataset.sort === "number";
      const grouped = head.dataset.key === "likelihood";
      button.addEventListener("click", () => {
        const first = head.dataset.first || "ascending";
        const other = first === "ascending" ? "descending" : "ascending";
        const order = head.getAttribute("aria-sort") === first ? other : first;
        const sense = order === "ascending" ? 1 : -1;
        const rows = [...body.rows].map((row) => ({ row, value: read(row, index, numeric), group: Number(row.dataset.group) }));
        rows.sort((a, b) => {
          if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
          if (grouped && a.group !== b.group) return a.group - b.group;
          return sense * (a.value < b.value ? -1 : a.value > b.value ? 1 : 0);
        });
        let last = rows.length ? rows[0].group : 0;
        for (const { row, group } of rows) {
          row.classList.toggle("first", grouped && group !== last);
          last = group;
          body.append(row);
        }
        for (const h of heads) h.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", order);
        said.textContent = `Sorted by ${button.textContent}, ${order}.`;
      });
    });
  }

  // A box with hidden columns shows a note; only such boxes take the keyboard focus.
  const boxes = [...document.querySelectorAll(".scroll")];
  const measure = () => {
    for (const box of boxes) {
      const wider = box.scrollWidth > box.clientWidth + 1;
      box.classList.toggle("wider", wider);
      box.tabIndex = wider ? 0 : -1;
    }
  };
  new ResizeObserver(measure).observe(document.body);
  for (const one of document.querySelectorAll("details")) one.addEventListener("toggle", measure);
  measure();

  // Commands: copied, or at least selected where the browser forbids it.
  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        const range = document.createRange();
        range.selectNodeContents(code);
        const selection = window.getSelection();
        selection.removeAllRanges();
        selection.addRange(range);
        button.textContent = document.execCommand("copy") ? "Copied" : "Selected";
      }
      setTimeout(() => (button.textContent = "Copy"), 1600);
    });
  }

  // A link to a model opens it; paper shows everything.
  const reveal = () => {
    const target = location.hash && document.getElementById(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") target.open = true;
  };
  window.addEventListener("hashchange", reveal);
  reveal();
  window.addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("details")) one.open = true;
  });
})();
