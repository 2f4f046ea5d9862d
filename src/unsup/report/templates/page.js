"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  // Light and dark: the system's choice until the reader changes it.
  const toggle = document.getElementById("theme");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const show = () => {
    toggle.textContent = isDark() ? "☀ Light" : "☾ Dark";
    toggle.ariaLabel = isDark() ? "Light: switch to light colours" : "Dark: switch to dark colours";
  };
  const stored = (...theme) => {
    try {
      return theme.length ? localStorage.setItem("unsup-theme", ...theme) : localStorage.getItem("unsup-theme");
    } catch {
      return null; // no storage for pages of this address
    }
  };
  if (stored()) root.dataset.theme = stored();
  show();
  dark.addEventListener("change", show);
  toggle.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    stored(root.dataset.theme);
    show();
  });

  // Tables: a heading sorts by its column, missing figures last; likelihoods stay grouped by kind.
  for (const head of document.querySelectorAll(".measures thead th")) {
    const table = head.closest("table");
    const button = document.createElement("button");
    button.type = "button";
    const name = head.querySelector(".name");
    name.replaceWith(button);
    button.append(name);
    button.addEventListener("click", () => {
      const first = head.dataset.first || "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const order = head.ariaSort === first ? other : first;
      const grouped = head.dataset.key === "likelihood";
      const group = (row) => (grouped ? Number(row.dataset.group) : 0);
      const text = (row) => row.cells[head.cellIndex].dataset.value;
      const above = (a, b) => (head.dataset.key ? Number(a) - Number(b) : a < b ? -1 : 1);
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [text(a), text(b)];
        if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
        return group(a) - group(b) || (order === "ascending" ? 1 : -1) * above(x, y);
      });
      rows.forEach((row, i) => row.classList.toggle("first", i > 0 && group(row) !== group(rows[i - 1])));
      table.tBodies[0].append(...rows);
      for (const one of table.tHead.rows[0].cells) one.ariaSort = one === head ? order : null;
      document.getElementById("sorted").textContent = `Sorted by ${button.textContent}, ${order}.`;
    });
  }

  // A box with hidden columns shows a note; only such boxes take the keyboard focus.
  const measure = () => {
    for (const box of document.querySelectorAll(".scroll")) {
      const wider = box.scrollWidth > box.clientWidth + 1;
      box.classList.toggle("wider", wider);
      box.tabIndex = wider ? 0 : -1;
    }
  };
  new ResizeObserver(measure).observe(document.body); // also where a part is opened

  // Commands: copied, or at least selected where the browser forbids it.
  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", async () => {
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        window.getSelection().selectAllChildren(code);
        button.textContent = document.execCommand("copy") ? "Copied" : "Selected";
      }
      setTimeout(() => (button.textContent = "Copy"), 1600);
    });
  }

  // A link to a model opens it; paper shows everything.
  const reveal = () => document.querySelector("details:target")?.setAttribute("open", "");
  window.addEventListener("hashchange", reveal);
  reveal();
  window.addEventListener("beforeprint", () => {
    for (const one of document.querySelectorAll("details")) one.open = true;
  });
})();
