"""The style of a run's report: one sheet in the page itself, in light and dark as the reader's system has it."""

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --ink: #1b1f24; --quiet: #59636e; --line: #d4d9df; --soft: #f3f5f7;
  --one: #0b62c4; --two: #c2570c; --three: #1a7f4b; --four: #8a94a0; --bad: #c4242b; }
@media (prefers-color-scheme: dark) {
  :root { --ground: #14171b; --ink: #e4e8ec; --quiet: #98a2ad; --line: #363c44; --soft: #1e2328;
    --one: #62a8f5; --two: #f0914d; --three: #4cc38a; --four: #6d7782; --bad: #f2777c; }
}
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto 4rem; max-width: 64rem; padding: 0 1rem;
  background: var(--ground); color: var(--ink); }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; } p { margin: .4rem 0; max-width: 46rem; }
.quiet, small { color: var(--quiet); } small { font-size: .8rem; } .bad { color: var(--bad); }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); gap: .6rem; margin: .8rem 0; }
.fact { background: var(--soft); border-radius: .4rem; padding: .5rem .7rem; display: flex; flex-direction: column; }
.fact span { font-size: .8rem; } .fact b { font-size: 1.25rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin: .6rem 0; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .7rem .25rem 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; color: var(--quiet); font-size: .85rem; } th.text, td.text { text-align: left; }
td.text { white-space: normal; overflow-wrap: anywhere; min-width: 8rem; }
svg { width: 100%; height: auto; display: block; margin: .3rem 0; }
svg text { font-size: 12px; fill: var(--quiet); font-variant-numeric: tabular-nums; }
.grid { stroke: var(--line); } .axis { stroke: var(--quiet); } .line { fill: none; stroke-width: 2; }
.line.board { stroke: var(--four); stroke-width: 1; opacity: .45; }
.line.mean { stroke: var(--one); } .line.worst { stroke: var(--two); } .line.base { stroke: var(--four); }
.dot.mean { fill: var(--one); } .dot.worst { fill: var(--two); } .dot.base { fill: var(--four); }
.gain, .part0, .fair { fill: var(--one); } .loser { fill: var(--bad); }
.part1 { fill: var(--two); } .part2 { fill: var(--three); } .part3, .plain { fill: var(--four); }
.legend { display: flex; flex-wrap: wrap; gap: .1rem 1.1rem; color: var(--quiet); font-size: .85rem; }
.key { display: inline-block; width: .8rem; height: .8rem; border-radius: .15rem; margin-right: .4rem; }
.key.mean, .key.part0, .key.gain, .key.fair { background: var(--one); }
.key.worst, .key.part1 { background: var(--two); }
.key.part2 { background: var(--three); } .key.part3, .key.board, .key.plain { background: var(--four); }
.key.loser { background: var(--bad); }
@media print { body { max-width: none; margin: 0; } h2 { break-after: avoid; } svg, .facts { break-inside: avoid; } }
"""
