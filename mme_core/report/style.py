"""The style sheet of the pages: narrow and wide screens, light and dark."""

# The colours of series are Okabe and Ito's, which colour-blind readers can tell apart.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#b2a400")

STYLE = """
:root { --paper:#fff; --ink:#1c2330; --soft:#5c6675; --line:#dde2ea; --box:#f5f7fa; --bar:#0072b2;
  --warn:#fff4e0; --warn-line:#e69f00;
  --good:#e8f6ef; --good-line:#009e73; color-scheme:light dark }
@media (prefers-color-scheme:dark) { :root { --paper:#14181f; --ink:#e6e9ef; --soft:#9aa5b5;
  --line:#333c49; --box:#1d232d; --bar:#56b4e9; --warn:#33290f; --good:#10301f } }
* { box-sizing:border-box }
body { margin:0 auto; max-width:1120px; padding:16px; background:var(--paper); color:var(--ink);
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;
  overflow-wrap:anywhere }
h1 { font-size:24px; line-height:1.25; margin:8px 0 4px }
h2 { font-size:19px; margin:0 0 8px; padding-top:12px }
h3 { font-size:15px; margin:16px 0 6px }
p { margin:6px 0; max-width:80ch }
section { margin:20px 0; border-top:1px solid var(--line) }
.note, figcaption { color:var(--soft); font-size:13px }
nav { display:flex; flex-wrap:wrap; gap:6px; margin:10px 0 }
nav a { padding:3px 10px; border:1px solid var(--line); border-radius:14px; font-size:13px;
  text-decoration:none; color:inherit }
.tiles { display:grid; grid-template-columns:repeat(auto-fill,minmax(130px,1fr)); gap:10px;
  margin:10px 0 }
.tiles div { background:var(--box); border-radius:8px; padding:10px 12px }
.tiles b { display:block; font-size:20px; font-weight:600; line-height:1.25 }
.tiles span { color:var(--soft); font-size:13px }
.grid { display:grid; gap:16px; margin:10px 0; align-items:start }
figure { margin:0; min-width:0 }
figcaption { margin-top:4px }
figure img { display:block; max-width:100%; height:auto; border-radius:4px; background:var(--box) }
figure.plot { background:var(--box); border-radius:8px; padding:10px }
figure.plot b { font-size:13px; font-weight:600 }
svg { display:block; width:100%; height:auto }
svg text { font-size:11px; fill:var(--soft); font-family:inherit }
svg .axis { stroke:var(--line); stroke-width:1 }
svg .bar { fill:var(--bar) }
svg .curve { fill:none; stroke-width:1.8; stroke-linejoin:round }
svg .dashed { stroke-dasharray:5 4 }
.legend { display:flex; flex-wrap:wrap; gap:2px 12px; font-size:12px; color:var(--soft);
  list-style:none; margin:4px 0 0; padding:0 }
.legend i { display:inline-block; width:14px; border-top:3px solid; margin-right:5px;
  vertical-align:middle }
.legend i.dashed { border-top-style:dotted }
.scroll { overflow-x:auto; margin:8px 0 }
table { border-collapse:collapse; font-size:13px; min-width:50% }
th, td { text-align:left; padding:4px 12px 4px 0; border-bottom:1px solid var(--line);
  vertical-align:top; overflow-wrap:normal }
td { max-width:60ch; min-width:3em }
th { font-weight:600; white-space:nowrap }
.number { text-align:right; font-variant-numeric:tabular-nums; white-space:nowrap }
code, .id { font-family:ui-monospace,Menlo,Consolas,monospace; font-size:12px;
  overflow-wrap:anywhere }
details { margin:6px 0; border:1px solid var(--line); border-radius:6px; padding:6px 10px }
summary { cursor:pointer }
ul.ids { margin:6px 0; padding-left:18px; font-size:12px }
.message { border-left:4px solid; border-radius:4px; padding:8px 12px; margin:8px 0 }
.message p { margin:2px 0 }
.warning { background:var(--warn); border-color:var(--warn-line) }
.good { background:var(--good); border-color:var(--good-line) }
.share { display:inline-block; width:90px; height:8px; background:var(--line); border-radius:4px;
  vertical-align:middle; margin-right:8px; overflow:hidden }
.share i { display:block; height:100%; background:var(--bar) }
.wide img { max-width:none; width:max(100%,500px) }
.row { display:grid; grid-template-columns:repeat(auto-fill,minmax(max(76px,11%),1fr)); gap:8px }
.row { margin:0 0 14px; padding-bottom:10px; border-bottom:1px solid var(--line) }
.row img, .blank { width:100%; aspect-ratio:4/3; object-fit:cover; border-radius:4px }
.blank { background:var(--box) }
.map { max-width:640px }
pre { overflow-x:auto; font-size:12px }
.row figcaption { font-size:11px; line-height:1.3 }
.mine { outline:3px solid var(--bar); outline-offset:1px }
.right { color:#009e73; font-weight:600 }
.wrong { color:#d55e00; font-weight:600 }
"""
