"""The look of a report: light and dark, wide and narrow."""

STYLE = """
:root{--paper:#fff;--ink:#1d2733;--soft:#5b6878;--line:#dbe1e8;--card:#f5f7fa;--bar:#c3cfdd;
--main:#2563c9;--mainbar:#a9c6f5;--right:#0a7d52;--wrong:#c2410c;--other:#697687}
@media(prefers-color-scheme:dark){:root{--paper:#12171e;--ink:#e6ebf1;--soft:#9aa8b8;
--line:#2b3542;--card:#1a222c;--bar:#3a4757;--main:#7fb0ff;--mainbar:#2b528f;--right:#159a68;
--wrong:#e2632a;--other:#7c8a9b}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,Helvetica,Arial,sans-serif}
main{max-width:62rem;margin:0 auto;padding:1.5rem 1rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:.5rem 0}
h2{font-size:1.25rem;margin:2.4rem 0 .6rem;padding-top:1rem;border-top:1px solid var(--line)}
h3{font-size:.95rem;font-weight:500;margin:.7rem 0 .2rem;color:var(--soft)}
p{margin:.4rem 0 .8rem;max-width:46rem}
.lead{font-size:1.15rem}.note,.legend,small{color:var(--soft)}.note,.legend{font-size:.9rem}
.scroll{overflow-x:auto}
table{border-collapse:collapse;table-layout:fixed;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.4rem .6rem;text-align:left;vertical-align:middle;border-bottom:1px solid var(--line)}
thead th{font-size:.85rem;color:var(--soft);font-weight:500}
tbody th{font-weight:400}
td b{display:block;font-weight:500}
td i,.guess i{display:block;height:.35rem;border-radius:.2rem;background:var(--bar);
min-width:2px}
td.none{color:var(--soft)}
.strong th,.strong b{font-weight:700;color:var(--main)}
.strong td i,td.strong i{background:var(--main)}
.clips{display:grid;grid-template-columns:repeat(auto-fill,minmax(17rem,1fr));gap:1rem}
article{background:var(--card);border:1px solid var(--line);border-radius:.7rem;overflow:hidden;
padding-bottom:.6rem}
article img{display:block;width:100%;height:auto;aspect-ratio:4/3}
article h3{margin-left:.9rem}
ul{list-style:none;margin:0;padding:0 .9rem}
li{margin:.5rem 0 .8rem}li p{margin:0 0 .2rem}
li em{font-style:normal;font-weight:600}.right em{color:var(--right)}.wrong em{color:var(--wrong)}
.tag{display:inline-block;min-width:1.35rem;padding:0 .35rem;border-radius:.3rem;color:#fff;
font-weight:700;font-size:.85rem;text-align:center}
.legend .tag:not(:first-child){margin-left:1rem}
.tag.right{background:var(--right)}.tag.wrong{background:var(--wrong)}
.tag.other{background:var(--other)}
.guess{display:grid;grid-template-columns:1fr auto;font-size:.85rem;column-gap:.5rem}
.guess b{font-weight:500;font-variant-numeric:tabular-nums}.guess i{grid-column:1/3}
.guess i{margin-bottom:.25rem}
.right .guess:first-of-type i{background:var(--right)}
.wrong .guess:first-of-type i{background:var(--wrong)}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(18rem,1fr));gap:1.5rem}
figure{margin:0}figcaption{color:var(--soft);font-size:.9rem}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:12px}
svg .grid{stroke:var(--line);stroke-width:1}svg .raw{stroke:var(--main);opacity:.25}
svg .smooth{stroke:var(--main);stroke-width:2.5}
svg .raw,svg .smooth{fill:none;stroke-linejoin:round}
dl{display:grid;grid-template-columns:minmax(7rem,auto) 1fr;gap:.4rem 1.2rem;margin:0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.87em}
@media(max-width:34rem){dl{grid-template-columns:1fr;gap:0}dd{margin-bottom:.6rem}
h1{font-size:1.5rem}th,td{padding:.4rem .35rem}}
@media print{article{break-inside:avoid}}
"""
