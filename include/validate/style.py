"""The look of the validation report: one style sheet, light and dark."""

STYLE = """
:root{color-scheme:light dark;--page:#f6f7f5;--card:#fff;--ink:#1c2420;--soft:#5c6a63;--line:#e0e5e1;
--error:#b3261e;--error-bg:#fceeed;--warn:#8a5a00;--warn-bg:#fdf4e0;--ok:#1f6f43;--ok-bg:#e8f4ec}
@media(prefers-color-scheme:dark){:root{--page:#121714;--card:#1a211d;--ink:#e6ece8;--soft:#9aa8a0;--line:#2d3832;
--error:#ff8a80;--error-bg:#3a1f1d;--warn:#f5c15d;--warn-bg:#372b14;--ok:#7fd1a0;--ok-bg:#183324}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 24px 48px}
header{display:flex;flex-wrap:wrap;align-items:center;gap:4px 16px}
.eyebrow{flex-basis:100%;margin:0;color:var(--soft);font-size:13px}
h1{margin:0;font-size:28px;line-height:1.2;overflow-wrap:anywhere}
h2{margin:32px 0 10px;font-size:17px}
h3{margin:0;font-size:14px;font-weight:600}
.verdict{margin:0;padding:4px 14px 4px 6px;border-radius:99px;font-weight:600;display:flex;align-items:center;gap:8px}
.sign{display:inline-flex;flex:none;width:22px;height:22px;border-radius:50%;align-items:center;justify-content:center;
font-weight:700;font-size:13px;line-height:1}
.error>.sign,.error.verdict{color:var(--error);background:var(--error-bg)}
.warn>.sign,.warn.verdict{color:var(--warn);background:var(--warn-bg)}
.ok>.sign,.ok.verdict{color:var(--ok);background:var(--ok-bg)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:3px 16px;margin:16px 0 20px;font-size:14px}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
code{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(130px,1fr));gap:10px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 16px}
.tile b{display:block;font-size:24px;line-height:1.2;font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:13px}
.tile.error b{color:var(--error)}.tile.warn b{color:var(--warn)}
.findings,.scroll{background:var(--card);border:1px solid var(--line);border-radius:10px}
.findings{list-style:none;margin:0;padding:0}
.findings li{display:grid;grid-template-columns:22px 140px 1fr;gap:12px;padding:12px 16px;border-top:1px solid var(--line)}
.findings li:first-child{border-top:0}
.findings p{margin:0 0 10px;overflow-wrap:anywhere}.findings p:last-child{margin:0}
.fix{display:block;color:var(--soft)}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{padding:7px 12px;text-align:left;vertical-align:top;border-top:1px solid var(--line);white-space:nowrap}
thead th{border-top:0;color:var(--soft);font-weight:500;font-size:13px}
tbody th{font-weight:600}
td:first-child,thead th:first-child{padding-right:0;width:34px}
.number{text-align:right;font-variant-numeric:tabular-nums}
small{display:block;color:var(--soft);font-size:12px}
.none,.note{color:var(--soft)}
.bar{display:inline-block;width:56px;height:6px;margin-right:8px;border-radius:3px;background:var(--line);
overflow:hidden;vertical-align:middle}
.bar i{display:block;height:100%;background:var(--soft)}
footer{margin-top:28px;color:var(--soft);font-size:13px}
@media(max-width:640px){.findings li{grid-template-columns:22px 1fr}.findings li>div{grid-column:2}}
"""
