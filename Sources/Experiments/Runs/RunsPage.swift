import Foundation
import PEFTSupport

/// The list of runs as a page.
package struct RunsPage {
    package struct Item: Sendable {
        package let address: String
        package let entry: RunEntry

        package init(address: String, entry: RunEntry) { (self.address, self.entry) = (address, entry) }
    }

    private let items: [Item]
    private let folder: String

    package init(_ items: [Item], folder: String) { (self.items, self.folder) = (items, folder) }

    package func html(navigation: Markup) -> String {
        let sections: [Markup] = RunEntry.Kind.allCases.compactMap { kind in
            let own = items.filter { $0.entry.kind == kind }
            return own.isEmpty ? nil : section(kind, own)
        }
        let content: Markup =
            sections.isEmpty
            ? """
            <section class="lead"><p>No runs yet.</p><p class="note">Runs of peft train whose output is in this folder, \
            and the files that peft compare, sweep and neighbors write with --output, appear here.</p></section>
            """ : sections.joined("\n")
        let body: Markup = """
            <header><h1>Runs</h1><p class="soft">In \(folder)</p></header>
            \(content)
            <footer>Served by peft-server \(Version.current). Runs whose files were removed stay in the list.</footer>
            """
        return HTMLPage(title: "Runs", body: body, navigation: navigation, style: Self.style).markup.text
    }

    private func section(_ kind: RunEntry.Kind, _ items: [Item]) -> Markup {
        let id = Markup(trusted: kind.rawValue.replacing(" ", with: "-"))
        let hasStates = kind == .training
        let rows: [Markup] = items.map { item in
            let entry = item.entry
            let state: Markup = hasStates ? "<td class=\"words state\">\(entry.state.rawValue)</td>" : ""
            return """
                <tr><th scope="row"><a href="\(item.address)">\(entry.name)</a><span class="title">\(entry.title)</span></th>\
                \(state)<td class="words">\(entry.detail)</td><td><time datetime="\(Self.machine(entry.date))">\(Self.shown(entry.date))</time></td></tr>
                """
        }
        let state: Markup = hasStates ? "<th scope=\"col\" class=\"words\">State</th>" : ""
        return """
            <section aria-labelledby="\(id)"><h2 id="\(id)">\(kind.heading)</h2>
            <div class="scroll" tabindex="0" role="region" aria-labelledby="\(id)"><table><thead><tr><th scope="col">Name</th>\
            \(state)<th scope="col" class="words">Result</th><th scope="col">Date (UTC)</th></tr></thead>
            <tbody>\(rows.joined("\n"))</tbody></table></div></section>
            """
    }

    private static func machine(_ date: Date) -> String { ISO8601DateFormatter().string(from: date) }

    package static func shown(_ date: Date) -> String {
        let format = DateFormatter()
        format.locale = Locale(identifier: "en_US_POSIX")
        format.timeZone = TimeZone(identifier: "UTC")
        format.dateFormat = "yyyy-MM-dd HH:mm"
        return format.string(from: date)
    }

    private static let style = """
        .scroll tr th:first-child{padding-left:0}
        tbody th a{font-weight:600}
        tbody th .title{display:block;font-weight:400;font-size:.8125rem;color:var(--soft);overflow-wrap:anywhere}
        td.state{min-width:0}
        @media (max-width:40rem){thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}\
        .scroll{overflow:visible;background:none}table,tbody,tr,tbody th,td,td.words{display:block;text-align:left;\
        min-width:0;white-space:normal;border:0;padding:.1rem 0}tbody tr{padding:.7rem 0;border-bottom:1px solid \
        var(--faint)}tbody tr:last-child{border-bottom:0}tr th:first-child{position:static}}
        """
}
