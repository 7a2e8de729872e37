"""The page's only script: tables sort by their headers, points say what they are when touched.

It is inlined, and the page's policy allows it alone, by its digest. Without it a page is complete.
"""

from __future__ import annotations

import base64
import hashlib

SCRIPT = """\
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = head.firstElementChild;
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows];
      const key = (row) => {
        const text = row.cells[column].textContent.trim();
        const number = parseFloat(text.replace(/,/g, "").replace("\\u2212", "-"));
        return head.classList.contains("number") ? (isNaN(number) ? null : number) : text;
      };
      rows.sort((a, b) => {
        const x = key(a), y = key(b);
        if (x === null || y === null) return (x === null) - (y === null);
        const order = typeof x === "number" ? x - y : x.localeCompare(y, undefined, {numeric: true});
        return down ? -order : order;
      });
      body.append(...rows);
    });
  });
}
const tip = document.createElement("div");
tip.className = "tip";
tip.setAttribute("role", "status");
tip.hidden = true;
document.body.append(tip);
function show(point) {
  const title = point.querySelector("title");
  if (title) { point.dataset.tip = title.textContent; title.remove(); }
  tip.textContent = point.dataset.tip;
  tip.hidden = false;
  const box = point.querySelector(".mark").getBoundingClientRect();
  const width = tip.offsetWidth, room = document.documentElement.clientWidth;
  const left = Math.min(Math.max(box.x + box.width / 2 - width / 2, 8), room - width - 8);
  const above = box.y - tip.offsetHeight - 8;
  tip.style.left = left + scrollX + "px";
  tip.style.top = (above > 4 ? above : box.bottom + 8) + scrollY + "px";
}
for (const point of document.querySelectorAll(".point")) {
  point.addEventListener("pointerenter", () => show(point));
  point.addEventListener("focus", () => show(point));
  point.addEventListener("pointerleave", () => { tip.hidden = true; });
  point.addEventListener("blur", () => { tip.hidden = true; });
}
"""


def script_digest() -> str:
    """The script as a Content-Security-Policy names it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
