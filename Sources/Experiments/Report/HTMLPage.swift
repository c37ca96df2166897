/// The frame of a report page: one file, nothing loaded from anywhere, well-formed as XML too.
package struct HTMLPage {
    let title: String
    let body: Markup
    /// Links above the content, to other pages of a server.
    let navigation: Markup
    /// The page's own rules and script, beside those that all pages share.
    private let ownStyle: String
    private let ownScript: String
    /// Whether the page may send requests to the server that it comes from.
    private let connects: Bool

    package init(
        title: String, body: Markup, navigation: Markup = .empty, style: String = "", script: String = "",
        connects: Bool = false
    ) {
        (self.title, self.body, self.navigation) = (title, body, navigation)
        (ownStyle, ownScript, self.connects) = (style, script, connects)
    }

    /// The page's script as character data to an XML parser, and as comments around it to an HTML parser.
    private var markedScript: String { ownScript.isEmpty ? "" : "\n//<![CDATA[\n\(ownScript)\n//]]>" }

    /// The policy makes the browser refuse every outside resource, whatever the text of a model may hold.
    package var markup: Markup {
        let requests: Markup = connects ? "; connect-src 'self'; form-action 'self'" : ""
        return """
            <!DOCTYPE html>
            <html lang="en">
            <head>
            <meta charset="utf-8"/>
            <meta name="viewport" content="width=device-width, initial-scale=1"/>
            <meta name="color-scheme" content="light dark"/>
            <meta name="referrer" content="no-referrer"/>
            <meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\(requests)"/>
            <title>\(title)</title>
            <style>
            \(Markup(trusted: Self.style + Palette.style + ownStyle))
            </style>
            </head>
            <body>
            \(navigation)\
            <main id="content">
            \(body)
            </main>
            <script>
            \(Markup(trusted: Self.script + markedScript))
            </script>
            </body>
            </html>

            """
    }

    // No `<`, `&` or `>` as a child selector: the text is the same to an HTML and to an XML parser.
    private static let style = """
        :root{color-scheme:light dark;--page:#fff;--ink:#1b1f24;--soft:#59626d;--faint:#e4e7eb;--panel:#f6f7f9;\
        --rule:#cfd4da;--best:#eaf4ee}
        @media screen and (prefers-color-scheme:dark){:root{--page:#15181c;--ink:#e7eaee;--soft:#a3acb7;\
        --faint:#2a3037;--panel:#1c2025;--rule:#414952;--best:#1c3128}}
        *{box-sizing:border-box}
        html{-webkit-text-size-adjust:100%;text-size-adjust:100%}
        body{margin:0;background:var(--page);color:var(--ink);font:1rem/1.55 system-ui,-apple-system,"Segoe UI",\
        Roboto,"Helvetica Neue",Arial,sans-serif;font-variant-numeric:tabular-nums;overflow-wrap:break-word}
        main{max-width:84rem;margin:0 auto;padding:clamp(1.25rem,4vw,3.5rem) clamp(1rem,4vw,2.5rem) 4rem}
        h1{font-size:clamp(1.5rem,1.1rem + 1.8vw,2.25rem);line-height:1.2;letter-spacing:-.015em;font-weight:650;\
        margin:0 0 .35rem;text-wrap:balance}
        h2{font-size:1.3rem;line-height:1.3;letter-spacing:-.01em;font-weight:650;margin:3.5rem 0 .4rem}
        h3{font-size:1rem;font-weight:650;margin:2rem 0 .35rem}
        p{margin:.4rem 0 .8rem;max-width:46rem}
        .soft,figcaption,.note{color:var(--soft)}
        .note,figcaption{font-size:.875rem;line-height:1.5}
        .lead{margin:1.75rem 0 2rem;max-width:50rem}
        .lead p{font-size:clamp(1.0625rem,1rem + .35vw,1.25rem);line-height:1.5;margin:0 0 .6rem;max-width:none}
        .lead p.note{font-size:.9375rem}
        .hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}

        .keys{display:grid;grid-template-columns:repeat(auto-fit,minmax(10rem,1fr));gap:0;margin:.5rem 0 0;padding:0;\
        border-top:1px solid var(--rule);border-bottom:1px solid var(--rule)}
        .tile{padding:1rem 1.25rem 1rem 0}
        .keys dt{font-size:.875rem;color:var(--soft)}
        .keys dd{margin:0}
        .keys .figure{font-size:1.75rem;line-height:1.25;font-weight:600;letter-spacing:-.02em;white-space:nowrap}
        .keys .figure small{font-size:1rem;font-weight:500;letter-spacing:0;color:var(--soft)}
        .keys .aside{font-size:.875rem;line-height:1.4;color:var(--soft)}

        .scroll{position:relative;overflow-x:auto;margin:1rem 0 .6rem;border-top:1px solid var(--rule);border-bottom:1px solid var(--rule);\
        background:linear-gradient(to left,var(--page),transparent) right/4rem 100% no-repeat local,\
        linear-gradient(to left,var(--rule),transparent) right/.75rem 100% no-repeat scroll}
        .scroll:focus-visible,button:focus-visible,summary:focus-visible{outline:2px solid var(--ink);outline-offset:2px}
        table{border-collapse:collapse;width:100%;font-size:.9rem;line-height:1.35}
        th,td{padding:.6rem .6rem;text-align:right;vertical-align:baseline;white-space:nowrap;\
        border-bottom:1px solid var(--faint)}
        tbody tr:last-child th,tbody tr:last-child td{border-bottom:0}
        thead th{vertical-align:bottom;font-weight:500;font-size:.8125rem;color:var(--soft);border-bottom-color:var(--rule)}
        thead small{display:block;font-size:.75rem;font-weight:400}
        tr th:first-child{text-align:left;position:sticky;left:0;background:var(--page);padding-left:0;z-index:1}
        tbody th{font-weight:550;white-space:normal;min-width:15rem;padding-right:1rem}
        tbody.baselines th{font-weight:400}tbody.baselines tr:first-child>*{border-top:1px solid var(--rule)}
        .scroll tr th:first-child{padding-left:1.5rem}tbody th .swatch{position:absolute;left:0;top:.72rem}
        tbody tr:hover td,tbody tr:hover th{background:var(--panel)}
        td.best{font-weight:700}
        .meter{display:block;width:100%;min-width:6.5rem;height:6px;margin-top:.25rem;border-radius:3px}
        .meter .track{fill:var(--faint)}
        .trade td{vertical-align:top}
        th.words,td.words{text-align:left;white-space:normal;min-width:14rem}
        .word{display:inline-block;margin-right:.7rem}
        mark{background:var(--best);color:inherit;border-radius:.2rem;padding:0 .2rem;font-weight:600}
        .frontier-mark{color:var(--soft);font-size:.75rem}
        td.best .mean{background:var(--best);border-radius:.25rem;padding:.1rem .3rem;margin:-.1rem -.3rem}
        td .spread{color:var(--soft);font-weight:400;font-size:.8125rem}
        .none{color:var(--soft)}
        th button{all:unset;cursor:pointer;color:inherit;font:inherit;text-align:inherit;border-radius:.2rem}
        th button:hover{color:var(--ink)}
        th[aria-sort] button{color:var(--ink);font-weight:650}
        th[aria-sort=ascending] button::before{content:"↑ "}
        th[aria-sort=descending] button::before{content:"↓ "}

        details{margin:.6rem 0}
        summary{cursor:pointer;color:var(--soft);font-size:.9375rem;border-radius:.2rem;width:fit-content;max-width:100%}
        summary:hover{color:var(--ink)}
        .glossary{display:grid;grid-template-columns:minmax(9rem,max-content) minmax(0,44rem);gap:.45rem 1.5rem;\
        margin:.8rem 0 0;font-size:.9rem;line-height:1.5}
        .glossary dt{font-weight:600}
        .glossary dd{margin:0;color:var(--soft)}

        .charts{display:grid;gap:2.25rem 3rem;margin:1.5rem 0 0;align-items:start}
        .thirds{grid-template-columns:repeat(auto-fill,minmax(min(100%,17rem),1fr))}
        .halves{grid-template-columns:repeat(auto-fill,minmax(min(100%,26rem),1fr))}
        figure{margin:0;min-width:0;max-width:44rem}
        figure h3{margin:0 0 .1rem}
        @supports (grid-template-rows:subgrid){figure{display:grid;grid-row:span 3;grid-template-rows:subgrid;row-gap:0}}
        figcaption{margin-bottom:.9rem;max-width:40rem}
        .chart{display:block;width:100%;max-width:38rem;height:auto;overflow:visible;font-family:inherit}
        .narrow{display:none}
        .legend{display:none;flex-wrap:wrap;gap:.2rem 1rem;list-style:none;margin:.6rem 0 0;padding:0;font-size:.875rem}
        .legend.always{display:flex}
        .swatch{vertical-align:-.1em;flex:none}
        .chart text{fill:var(--ink);font-size:12.5px}
        .chart .tick,.chart .axis-title{fill:var(--soft);font-size:12px}
        .chart .value{font-weight:600}
        .chart .label,.chart .value{paint-order:stroke;stroke:var(--page);stroke-width:4px;stroke-linejoin:round}
        .chart .none{fill:var(--soft);font-weight:400}
        .chart .name{fill:var(--m);font-weight:550;paint-order:stroke;stroke:var(--page);stroke-width:3px;\
        stroke-linejoin:round}
        .grid{stroke:var(--faint);stroke-width:1}
        .axis{stroke:var(--rule);stroke-width:1}
        .track{fill:var(--panel)}
        .cell{fill:var(--m)}
        .fill,.dot{fill:var(--m)}
        .dot{stroke:var(--page);stroke-width:1}
        .interval{stroke:var(--m);stroke-width:2;opacity:.55}
        .cap{stroke:var(--m);stroke-width:1.5;opacity:.55}
        .level{stroke:var(--m);stroke-width:1.5;stroke-dasharray:5 4}
        .frontier{fill:none;stroke:var(--rule);stroke-width:1.5;stroke-dasharray:2 3}
        .link{stroke:var(--soft);stroke-width:1;opacity:.18}
        .pale{opacity:.42}
        .leader{stroke:var(--m);stroke-width:1;opacity:.5;fill:none}
        .line{fill:none;stroke:var(--m);stroke-width:2.25;stroke-linejoin:round;stroke-linecap:round}
        .strand{fill:none;stroke:var(--m);stroke-width:1;opacity:.32;stroke-linejoin:round}
        .ring{fill:none;stroke:var(--m);stroke-width:1.5}

        .sample{border-top:1px solid var(--rule);padding:1.1rem 0 .6rem;margin-top:1.2rem}
        .sample h3{margin:0 0 .3rem}
        .outputs{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,16rem),1fr));gap:.9rem;margin-top:.9rem}
        .output{background:var(--panel);border-radius:.5rem;padding:.75rem .9rem;border-top:3px solid var(--m,var(--rule));\
        min-width:0}
        .output h4{margin:0 0 .3rem;font-size:.8125rem;font-weight:600;color:var(--m,var(--ink))}
        .output.target{background:none;border:1px solid var(--faint);border-top:3px solid var(--ink)}
        .text{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate;font-size:.9375rem;line-height:1.5;\
        max-width:none}
        .prompt{background:var(--panel);border-radius:.5rem;padding:.75rem .9rem;margin:.5rem 0}
        .facts{display:grid;grid-template-columns:minmax(7rem,max-content) minmax(0,1fr);gap:.35rem 1.5rem;margin:.8rem 0 0;\
        font-size:.9rem}
        .facts dt{color:var(--soft)}
        .facts dd{margin:0;overflow-wrap:anywhere}
        code,.code{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"Liberation Mono",monospace;font-size:.8125rem;\
        white-space:pre-wrap;overflow-wrap:anywhere}
        .recipes h3{margin-top:.6rem}
        .recipes{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,18rem),1fr));gap:1.5rem 2.5rem}
        footer{margin-top:3.5rem;padding-top:1rem;border-top:1px solid var(--rule);color:var(--soft);font-size:.875rem}

        @media (max-width:40rem){.wide{display:none}.narrow{display:block}.legend{display:flex}\
        .keys{grid-template-columns:1fr 1fr}.keys .figure{font-size:1.4rem}.tile{padding:.75rem .75rem .75rem 0}\
        .glossary{grid-template-columns:1fr;gap:.1rem}.glossary dd{margin-bottom:.6rem}\
        tbody th{min-width:8.5rem}h2{margin-top:2.75rem}}
        @media print{body{font-size:10pt}main{max-width:none;padding:0}.scroll{overflow:visible}table{font-size:7.5pt}\
        th,td{padding:.3rem .25rem;white-space:normal}figure,.sample,.keys,tr{break-inside:avoid}h2,h3{break-after:avoid}\
        tr th:first-child{position:static}.halves{grid-template-columns:1fr 1fr}.thirds{grid-template-columns:1fr 1fr 1fr}\
        .charts{gap:1.5rem}}
        """

    // Columns sort on a click; without scripts the table is simply in the order asked for.
    private static let script = """
        for (const table of document.querySelectorAll("table.sortable")) {
          const body = table.tBodies[0];
          const heads = Array.from(table.tHead.rows[0].cells);
          heads.forEach((head, column) => {
            const button = document.createElement("button");
            button.type = "button";
            button.title = "Sort by this column";
            button.append(...head.childNodes);
            head.append(button);
            button.addEventListener("click", () => {
              const falling = head.dataset.first === "falling";
              const old = head.getAttribute("aria-sort");
              const sign = (old ? old === "ascending" : falling) ? -1 : 1;
              heads.forEach(other => other.removeAttribute("aria-sort"));
              head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
              const key = row => row.cells[column].dataset.value;
              const rows = Array.from(body.rows);
              const compare = (a, b) => {
                if (key(a) === undefined) return key(b) === undefined ? 0 : 1;
                if (key(b) === undefined) return -1;
                return sign * (column === 0 ? key(a).localeCompare(key(b)) : Number(key(a)) - Number(key(b)));
              };
              body.append(...rows.sort(compare));
            });
          });
        }
        """
}
