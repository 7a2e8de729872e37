"""How the page looks: on a wide screen, on a phone, in the dark and on paper."""

from __future__ import annotations

from bneck.report.network_picture import NETWORK_STYLE
from bneck.report.scatter import CHART_STYLE

_PAGE = """\
:root {
  --paper: #fdfdfc; --ink: #22262a; --soft: #5d656d; --line: #e3e5e7; --tint: #f4f5f6;
  --good: #00734f; --bad: #b34700; --even: #4a5560; --accent: #0072b2;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #15181b; --ink: #e4e7ea; --soft: #9ca5ae; --line: #2d3338; --tint: #1e2327;
    --good: #3fc79a; --bad: #f08a4b; --even: #aab4bd; --accent: #56b4e9;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
main { max-width: 68rem; margin: 0 auto; padding: 3rem 1.5rem 5rem; overflow-wrap: break-word; }
section + section { margin-top: 3.25rem; }
h1 { font-size: 1.75rem; line-height: 1.25; font-weight: 650; letter-spacing: -0.01em; margin: 0 0 1.25rem; }
h2 { font-size: 1.15rem; font-weight: 650; margin: 0 0 0.75rem; }
p { margin: 0 0 0.85rem; max-width: 46rem; }
.head { color: var(--soft); font-size: 0.85rem; margin-bottom: 0.6rem; }
.lead { font-size: 1.06rem; }
.note, figcaption, caption, .label, .remark { color: var(--soft); font-size: 0.85rem; line-height: 1.45; }
.warning {
  border-left: 4px solid var(--bad); background: var(--tint); padding: 0.7rem 1rem;
  font-weight: 600;
}
.beside {
  display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); gap: 1.5rem; align-items: start;
}
.beside figure, .beside .frame { margin: 0; }
.beside .panels { border: 0; padding: 0; }
.beside table { min-width: 100%; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: 1rem 1.25rem; }
.gallery figure { margin: 0; }
.gallery img { display: block; width: 6rem; height: auto; border-radius: 4px; }
.gallery figcaption { margin-top: 0.35rem; overflow-wrap: anywhere; }
.gallery b { color: var(--ink); font-weight: 650; }
.tiles {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(13rem, 1fr)); gap: 1rem;
  margin: 1.25rem 0 1.5rem;
}
.tile {
  background: var(--tint); border-top: 3px solid var(--line); border-radius: 3px;
  padding: 0.8rem 1rem 0.9rem;
}
.tile.good { border-top-color: var(--good); }
.tile.bad { border-top-color: var(--bad); }
.tile.even { border-top-color: var(--even); }
.value { font-size: 1.5rem; font-weight: 600; line-height: 1.4; font-variant-numeric: tabular-nums; }
.good .value { color: var(--good); }
.bad .value { color: var(--bad); }
.frame { overflow-x: auto; margin: 1rem 0 1.25rem; }
.frame:focus-visible, pre:focus-visible { outline: 2px solid var(--accent); }
table { border-collapse: collapse; min-width: min(100%, 36rem); font-size: 0.9rem; line-height: 1.35; }
caption { text-align: left; padding-bottom: 0.4rem; }
caption span { display: block; max-width: min(46rem, calc(100vw - 2rem)); }
th, td {
  text-align: left; vertical-align: top; padding: 0.42rem 0.7rem;
  border-bottom: 1px solid var(--line);
}
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0.2rem; }
thead th {
  font-weight: 500; color: var(--soft); font-size: 0.82rem; vertical-align: bottom;
  border-bottom-color: var(--soft);
}
tbody th { font-weight: 400; }
tbody th:not(.number) { min-width: 6.5rem; }
thead button { all: unset; cursor: pointer; font: inherit; color: inherit; position: relative; }
thead button:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
[aria-sort] button { color: var(--ink); }
[aria-sort=ascending] button::after { content: "\\2009\\2191"; }
[aria-sort=descending] button::after { content: "\\2009\\2193"; }
.tip {
  position: absolute; z-index: 9; max-width: min(22rem, calc(100vw - 1rem)); padding: 0.35rem 0.6rem;
  background: var(--ink); color: var(--paper); border-radius: 4px; font-size: 0.82rem;
  line-height: 1.4; pointer-events: none;
}
.tip[hidden] { display: none; }
.cards tbody th { min-width: 9.5rem; overflow-wrap: anywhere; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.number, tbody th.number { white-space: nowrap; }
tr.strong > * { font-weight: 650; }
figure { margin: 1.25rem 0 1.5rem; }
.panels {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr));
  gap: 0.75rem; border: 1px solid var(--line); border-radius: 6px; padding: 0.9rem;
}
.panels.wide { display: block; overflow-x: auto; }
.panels.wide .panel svg { max-width: none; margin: 0; }
.panel svg { display: block; width: 100%; height: auto; max-width: 34rem; margin: 0 auto; }
figcaption { margin-top: 0.6rem; max-width: 46rem; }
pre {
  background: var(--tint); border-radius: 4px; padding: 0.8rem 1rem; overflow-x: auto;
  margin: 0 0 1.25rem;
  font: 0.85rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
}
ul { padding-left: 1.2rem; margin: 0 0 0.85rem; columns: 22rem; font-size: 0.85rem; overflow-wrap: anywhere; }
@media screen and (max-width: 52rem) {
  .beside { grid-template-columns: minmax(0, 1fr); }
}
@media screen and (max-width: 40rem) {
  .gallery { grid-template-columns: 1fr 1fr; }
  main { padding: 1.75rem 1rem 3rem; }
  section + section { margin-top: 2.5rem; }
  h1 { font-size: 1.35rem; }
  .tiles { gap: 0.7rem; grid-template-columns: 1fr 1fr; }
  .tile { padding: 0.55rem 0.9rem 0.6rem; }
  .tile:last-child:nth-child(odd) { grid-column: 1 / -1; }
  .panels { padding: 0.4rem; }
  table { font-size: 0.79rem; }
  thead th { font-size: 0.75rem; }
  thead th.number + th.number { min-width: 2.6rem; }
  th, td { padding: 0.38rem 0.24rem; }
  .cards thead { display: none; }
  .cards table { font-size: 0.9rem; }
  .cards table, .cards tbody, .cards tr, .cards th, .cards td, .cards caption { display: block; }
  .cards tr {
    border: 1px solid var(--line); border-radius: 6px; padding: 0.5rem 0.85rem;
    margin-bottom: 0.8rem;
  }
  .cards td, .cards tbody th {
    display: flex; justify-content: space-between; gap: 1rem; padding: 0.25rem 0; border: 0;
    text-align: right; white-space: normal;
  }
  .cards td::before { content: attr(data-label); color: var(--soft); font-weight: 400; text-align: left; }
  .cards tbody th { font-weight: 650; text-align: left; min-width: 0; }
}
@media print {
  @page { margin: 15mm; }
  html { font-size: 11.5px; }
  body { font-size: 1rem; background: none; }
  main { max-width: none; padding: 0; }
  p, figcaption { max-width: none; }
  section + section { margin-top: 1.75rem; }
  h2, caption, thead { break-after: avoid; }
  tr, .tiles, figure { break-inside: avoid; }
  thead { display: table-header-group; }
  .frame { overflow: visible; }
  .tiles { grid-template-columns: repeat(3, 1fr); margin: 1rem 0; }
  .tile, .warning, pre { background: none; border: 1px solid #bbb; }
  pre { white-space: pre-wrap; }
  ul { columns: 2; }
  table { min-width: 60%; }
  th, td { padding: 0.25rem 0.5rem; }
  .panels { grid-template-columns: 1fr 1fr; border: 0; padding: 0; }
}
"""

STYLE = _PAGE + CHART_STYLE + NETWORK_STYLE
