"""The report's style sheet: light and dark, wide and narrow, screen and paper."""

# Colours after Okabe and Ito (2008), which people of any colour vision can tell apart; darker on white, lighter on black, so that lines and
# letters in them have a contrast of 3:1 and more.
STYLE = """
:root {
  color-scheme: light dark;
  --page: #fbfbf9; --card: #ffffff; --ink: #1d2126; --muted: #5b636d; --rule: #dfe2e5; --grid: #e9ebee;
  --c0: #0067a8; --c1: #c04f00; --c2: #00805d; --c3: #a8478a; --c4: #8a6d00; --c5: #3b86b8; --c6: #7a4bc0;
  --cut: #8b939c; --new: #0b4f7d; --new-back: #dcedf9; --mask: #7a3b00; --mask-back: #fbe6d2; --good: #00704f; --bad: #b03a00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --card: #1b1f23; --ink: #e7e9ec; --muted: #a2abb5; --rule: #343a41; --grid: #2a2f35;
    --c0: #5db4ec; --c1: #ff8f45; --c2: #35cda0; --c3: #e894cb; --c4: #e3c04c; --c5: #a3d4f3; --c6: #bb9bf5;
    --cut: #7d8690; --new: #b9e0fb; --new-back: #173a52; --mask: #ffcf9f; --mask-back: #4a2c10; --good: #4fd6aa; --bad: #ff9a61;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink); font: 1.0625rem/1.55 system-ui, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; }
main, header, footer { max-width: 66rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.5rem; }
h1 { font-size: 1rem; font-weight: 600; color: var(--muted); margin: 0; }
.headline { font-size: clamp(1.35rem, 1rem + 1.9vw, 2.1rem); line-height: 1.25; font-weight: 650; letter-spacing: -0.01em; margin: 0.5rem 0 1rem; max-width: 30em; text-wrap: pretty; }
h2 { font-size: 1.45rem; line-height: 1.25; margin: 0 0 0.6rem; letter-spacing: -0.01em; }
h3 { font-size: 1.08rem; margin: 1.8rem 0 0.2rem; }
section { margin: 3.2rem 0 0; padding-top: 1.6rem; border-top: 1px solid var(--rule); scroll-margin-top: 1rem; }
p { margin: 0.4rem 0 0.9rem; max-width: 46em; text-wrap: pretty; }
a { color: var(--c0); }
.muted, figcaption, small, footer { color: var(--muted); }
small { white-space: nowrap; font-size: 0.82em; }
code { font: 0.88em/1.5 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.2rem 1.1rem; list-style: none; padding: 0; margin: 1.4rem 0 0; font-size: 0.95rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 0.9rem; margin: 1.4rem 0; padding: 0; list-style: none; }
.tiles li { background: var(--card); border: 1px solid var(--rule); border-radius: 0.6rem; padding: 0.8rem 1rem; }
.tiles b { display: block; font-size: 1.75rem; line-height: 1.2; letter-spacing: -0.02em; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--muted); font-size: 0.9rem; line-height: 1.35; display: block; }
.wide { overflow-x: auto; margin: 0.8rem 0; border: 1px solid var(--rule); border-radius: 0.6rem; background: var(--card); }
.wide:focus-visible { outline: 2px solid var(--c0); }
table { border-collapse: collapse; width: 100%; font-size: 0.94rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.42rem 0.8rem; text-align: right; vertical-align: baseline; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--card); }
thead th { color: var(--muted); font-weight: 500; font-size: 0.86rem; border-bottom: 1px solid var(--rule); vertical-align: bottom; }
tbody th { font-weight: 400; overflow-wrap: anywhere; min-width: 7rem; }
tbody tr + tr > * { border-top: 1px solid var(--grid); }
.facts td, .commands td { text-align: left; overflow-wrap: anywhere; }
.facts tbody th { color: var(--muted); white-space: nowrap; }
.facts thead, .commands thead { display: none; }
.commands tbody th { min-width: 16rem; }
.named { white-space: nowrap; }
.named .swatch { margin-right: 0.15em; }
.figures { display: grid; gap: 1.2rem; margin: 1rem 0; }
.figures.two { grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.figures.small { grid-template-columns: repeat(auto-fill, minmax(min(100%, 15rem), 1fr)); }
figure { margin: 0; padding: 0.8rem 0.8rem 0.7rem; background: var(--card); border: 1px solid var(--rule); border-radius: 0.6rem; break-inside: avoid; min-width: 0; }
section > figure { max-width: 40rem; }
figcaption { font-size: 0.9rem; line-height: 1.4; padding: 0.3rem 0.3rem 0; }
svg.plot { display: block; width: 100%; height: auto; font: 12.5px system-ui, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; overflow: visible; }
.figures > .wide { margin: 0; align-self: start; }
.swatch { width: 1.7em; height: 0.9em; vertical-align: -0.06em; }
.legend { display: flex; flex-wrap: wrap; gap: 0.15rem 1rem; list-style: none; padding: 0; margin: 0 0.2rem 0.5rem; font-size: 0.9rem; }
.c0 { --c: var(--c0); } .c1 { --c: var(--c1); } .c2 { --c: var(--c2); } .c3 { --c: var(--c3); } .c4 { --c: var(--c4); }
.c5 { --c: var(--c5); } .c6 { --c: var(--c6); } .ink { --c: var(--ink); } .grey { --c: var(--cut); }
.fill { fill: var(--c); stroke: var(--card); stroke-width: 1; }
.hollow { fill: none; stroke: var(--c); stroke-width: 1.5; opacity: 0.75; }
.faint { fill-opacity: 0.45; stroke: none; }
.stroke { fill: none; stroke: var(--c); }
.line { stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.line.grey { stroke-width: 1.2; opacity: 0.6; }
.line.frontier { stroke-width: 1.5; stroke-dasharray: 1 4; opacity: 1; }
.whisker { stroke-width: 1.4; opacity: 0.6; }
.level { stroke-width: 1.4; stroke-dasharray: 5 4; opacity: 0.75; }
.grid { stroke: var(--grid); stroke-width: 1; }
.axis { stroke: var(--cut); stroke-width: 1; }
.tick, .note, .title { fill: var(--muted); }
.title { font-weight: 500; }
.text { fill: var(--c); }
.name, .note { paint-order: stroke; stroke: var(--card); stroke-width: 3.5px; stroke-linejoin: round; }
.name { font-weight: 600; }
.rows { list-style: none; padding: 0; margin: 0.8rem 0 1.2rem; background: var(--card); border: 1px solid var(--rule); border-radius: 0.6rem; }
.row { padding: 0.65rem 1rem; break-inside: avoid; }
.row + .row { border-top: 1px solid var(--grid); }
.row p { max-width: none; margin: 0; overflow-wrap: anywhere; }
.row p.text { color: var(--ink); max-width: 52em; }
.original p.text { font-weight: 600; }
.family .row:not(.original) { padding-left: 2rem; }
.row p.verdicts { font-size: 0.88rem; color: var(--muted); display: flex; flex-wrap: wrap; gap: 0 1.1rem; margin-top: 0.1rem; }
.verdict b { color: var(--ink); }
.verdict.right { color: var(--good); } .verdict.wrong { color: var(--bad); }
.verdict.right b { color: var(--good); } .verdict.wrong b { color: var(--bad); }
.who { color: var(--muted); }
.words { font-size: 0.95rem; }
.dropped { color: var(--cut); }
del { color: var(--cut); text-decoration: line-through; text-decoration-thickness: 1px; }
ins { color: var(--new); background: var(--new-back); text-decoration: none; border-radius: 0.25em; padding: 0.05em 0.3em; font-weight: 600; }
ins.mask { color: var(--mask); background: var(--mask-back); border: 1px dashed; padding: 0 0.25em; font-size: 0.86em; }
details { margin: 0.6rem 0 1rem; } summary { cursor: pointer; color: var(--muted); font-size: 0.94rem; padding: 0.2rem 0; }
footer { margin-top: 4rem; padding-bottom: 3rem; font-size: 0.92rem; }
@media (max-width: 40rem) {
  body { font-size: 1rem; } header { padding-top: 1.4rem; } main, header, footer { padding-inline: 0.9rem; }
  section { margin-top: 2.2rem; } .tiles { grid-template-columns: 1fr 1fr; gap: 0.6rem; } .tiles li { padding: 0.6rem 0.7rem; } .tiles b { font-size: 1.4rem; }
  svg.plot { font-size: 15px; } svg.plot.little { font-size: 12px; } figure { padding: 0.6rem 0.4rem; } th, td { padding-inline: 0.55rem; } .family .row:not(.original) { padding-left: 1.2rem; }
}
@media print {
  :root { --page: #fff; } body { font-size: 10pt; } nav { display: none; } section { break-inside: auto; } .wide { overflow: visible; }
  .figures.two { grid-template-columns: 1fr 1fr; } h2, h3 { break-after: avoid; }
}
"""
