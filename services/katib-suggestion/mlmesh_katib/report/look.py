"""How the page looks, and what it does: nothing but to show which marks are of the same trial."""

import base64
import hashlib

STYLE = """
:root{color-scheme:light dark;--ink:#1f2430;--soft:#667;--line:#d5d8e0;--paper:#fff;--best:#c2410c;--blue:#2f6fba;
--bad:#b3261e;--goal:#2e7d32}
@media (prefers-color-scheme:dark){:root{--ink:#e6e8ee;--soft:#9aa2b1;--line:#3a4050;--paper:#171a21;--best:#fb923c;
--blue:#7db3f2;--bad:#f2736b;--goal:#7ccf82}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:920px;margin:2em auto;
padding:0 1em}
h1{font-size:1.5em;margin:0}h2{font-size:1.15em;margin:2em 0 .4em}
svg{width:100%;height:auto}
table{border-collapse:collapse;width:100%;font-size:13px}
th,td{text-align:left;padding:.25em .6em .25em 0;border-bottom:1px solid var(--line);vertical-align:top}
.facts td{overflow-wrap:anywhere}
.wide{overflow-x:auto}.facts th{width:11em;color:var(--soft);font-weight:normal}
.note,.legend{color:var(--soft);font-size:13px;margin:.3em 0}
.legend span{margin-right:1.2em;white-space:nowrap}.legend svg{width:20px;height:14px;vertical-align:-2px}
pre{overflow-x:auto;font-size:12px;border:1px solid var(--line);padding:.7em}
text{fill:var(--ink);font:12px system-ui,sans-serif}.tick{fill:var(--soft);font-size:11px}
.label{text-anchor:end}.halo{paint-order:stroke;stroke:var(--paper);stroke-width:3px}
.grid{stroke:var(--line);stroke-width:.7}.axis{stroke:var(--soft)}
.bar{fill:var(--blue)}
.dot{fill:var(--blue);fill-opacity:.65}.dot.stopped{fill:var(--soft)}.dot.broken{fill:none;stroke:var(--bad)}
.dot.top{fill:var(--best);fill-opacity:1}.dot.off{fill:var(--paper);stroke:var(--blue)}
.dot.off.stopped{stroke:var(--soft)}.dot.off.broken{stroke:var(--bad)}
.line{fill:none;stroke:var(--blue);stroke-width:1.2}.line.early{stroke-dasharray:4 3}
.line.q0{stroke-opacity:.9}.line.q1{stroke-opacity:.6}.line.q2{stroke-opacity:.45}.line.q3{stroke-opacity:.35}
.line.q4{stroke-opacity:.28}.line.q5{stroke-opacity:.22}.line.q6{stroke-opacity:.17}.line.q7{stroke-opacity:.13}
.line.best{stroke:var(--best);stroke-width:2.2;stroke-opacity:1}
.goal,.line.goal{stroke:var(--goal);stroke-dasharray:6 4}
.failed,.line.failed{stroke:var(--bad);stroke-width:2}
.hot.line{stroke:var(--best);stroke-width:3;stroke-opacity:1}.hot.dot{fill:var(--best);fill-opacity:1;r:6px}
tr.hot td{background:color-mix(in srgb,var(--best) 18%,transparent)}
@media print{body{max-width:none;margin:0}details{display:none}h2{break-after:avoid}svg,tr{break-inside:avoid}}
"""

SCRIPT = """
(function () {
  var hot = [];
  function light(event) {
    hot.forEach(function (mark) { mark.classList.remove("hot"); });
    var mark = event.target.closest ? event.target.closest("[data-t]") : null;
    hot = mark ? Array.from(document.querySelectorAll('[data-t="' + Number(mark.dataset.t) + '"]')) : [];
    hot.forEach(function (other) { other.classList.add("hot"); });
  }
  document.addEventListener("mouseover", light);
})();
"""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY = (
    f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; base-uri 'none'; form-action 'none'"
)
"""Content-Security-Policy (W3C, level 3): this style, this script, and nothing from anywhere."""
