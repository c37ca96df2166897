/// The links at the top of a server's pages.
package enum Navigation {
    /// - Parameters:
    ///   - links: addresses and names of the pages.
    ///   - current: the address of the page that they are on.
    package static func markup(_ links: [(address: String, name: String)], current: String?) -> Markup {
        let items: [Markup] = links.map { link in
            let mark: Markup = link.address == current ? " aria-current=\"page\"" : ""
            return "<li><a href=\"\(link.address)\"\(mark)>\(link.name)</a></li>"
        }
        // The rules come with the links, as reports without links don't need them.
        return """
            <style>\(Markup(trusted: style))</style>
            <a class="skip" href="#content">Skip to the content</a>
            <nav aria-label="Pages"><ul>\(items.joined())</ul></nav>

            """
    }

    private static let style = """
        nav{border-bottom:1px solid var(--rule);background:var(--panel)}
        nav ul{max-width:84rem;margin:0 auto;padding:.2rem clamp(1rem,4vw,2.5rem);display:flex;flex-wrap:wrap;\
        gap:.25rem 1.5rem;list-style:none}
        nav a{display:inline-block;padding:.65rem 0;color:var(--soft);text-decoration:none;font-size:.9375rem}
        nav a:hover{color:var(--ink);text-decoration:underline}
        nav a[aria-current]{color:var(--ink);font-weight:600;box-shadow:inset 0 -2px var(--ink)}
        a{color:inherit}
        a:focus-visible{outline:2px solid var(--ink);outline-offset:2px;border-radius:.1rem}
        .skip{position:absolute;left:-10000px}
        .skip:focus{left:1rem;top:.5rem;z-index:9;background:var(--page);padding:.5rem 1rem}
        """
}
