import Experiments

/// The form that asks for an API key.
enum LoginPage {
    static func html(next: String, isWrong: Bool) -> String {
        let problem: Markup =
            isWrong ? "<p role=\"alert\" id=\"wrong\"><strong>Unknown API key.</strong></p>" : ""
        let described: Markup = isWrong ? " aria-describedby=\"wrong\" aria-invalid=\"true\"" : ""
        let body: Markup = """
            <header><h1>API key</h1><p class="soft">This server's pages need one of its API keys.</p></header>
            <form method="post" action="/login" class="login">
            \(problem)
            <input type="hidden" name="next" value="\(next)"/>
            <label for="key">Key</label>
            <input id="key" name="key" type="password" autocomplete="current-password" required="required" autofocus="autofocus"\(described)/>
            <button type="submit">Continue</button>
            </form>
            """
        return HTMLPage(title: "API key", body: body, style: FormStyle.css, connects: true).markup.text
    }
}

/// Rules of form controls.
enum FormStyle {
    static let css = """
        label,legend{display:block;font-weight:600;font-size:.9375rem;margin:0 0 .3rem;padding:0}
        input,textarea,select,button{font:inherit;color:inherit}
        textarea,input[type=number],input[type=password],select{width:100%;background:var(--page);\
        border:1px solid #7b848f;border-radius:.4rem;padding:.55rem .7rem}
        textarea{min-height:7rem;resize:vertical;line-height:1.5}
        button{background:var(--ink);color:var(--page);border:1px solid var(--ink);border-radius:.4rem;\
        padding:.6rem 1.25rem;font-weight:600;cursor:pointer;min-height:2.75rem}
        button.second{background:none;color:inherit;border-color:#7b848f}
        button:disabled{opacity:.45;cursor:default}
        input:focus-visible,textarea:focus-visible,select:focus-visible{outline:2px solid var(--ink);outline-offset:2px}
        .login{max-width:24rem;margin-top:1.5rem}
        .login button{margin-top:1rem}
        """
}
