import Experiments
import Serving

/// A page that sends one prompt to several adapters and shows their answers side by side as they arrive.
struct PlaygroundPage {
    let base: String
    let adapters: [AdapterStatus]
    /// Whether the tokenizer has a chat template.
    let hasChats: Bool

    func html(navigation: Markup) -> String {
        let usable = adapters.filter { $0.state != .rejected }
        var choices = [choice(base, "base model", index: 0, isChecked: true)]
        for (index, adapter) in usable.enumerated() {
            // The base and three adapters fit side by side.
            choices.append(choice(adapter.name, adapter.method, index: index + 1, isChecked: index < 3))
        }
        let rejected = adapters.filter { $0.state == .rejected }
        let problems: [Markup] = rejected.map { "<li><strong>\($0.name)</strong>: \($0.problem ?? "rejected")</li>" }
        let rejections: Markup =
            rejected.isEmpty
            ? ""
            : "<details><summary>\(rejected.count) rejected</summary><ul class=\"note\">\(problems.joined())</ul></details>"
        let kinds: Markup =
            hasChats
            ? """
            <fieldset><legend>Prompt is</legend>
            <label class="choice"><input type="radio" name="kind" value="chat" checked="checked"/> <span>a message of the user</span></label>
            <label class="choice"><input type="radio" name="kind" value="text"/> <span>a text to continue</span></label>
            </fieldset>
            """ : ""
        let body: Markup = """
            <header><h1>Playground</h1><p class="soft">One prompt, the answers of several adapters over \(base).</p></header>
            <form id="form">
            <div class="prompt-box"><label for="prompt">Prompt</label>
            <textarea id="prompt" name="prompt" required="required" aria-describedby="keys-help"></textarea>
            <p class="note" id="keys-help">Ctrl + Enter (⌘ + Enter) sends it.</p></div>
            <fieldset class="models"><legend>Models</legend>\(choices.joined("\n"))\(rejections)</fieldset>
            <div class="settings">
            \(kinds)
            <div><label for="tokens">Maximum new tokens</label><input id="tokens" name="tokens" type="number" min="1" max="8192" value="128" required="required"/></div>
            <div><label for="temperature">Temperature</label><input id="temperature" name="temperature" type="number" min="0" max="2" step="0.05" value="0" required="required"/></div>
            <div><label for="seed">Seed</label><input id="seed" name="seed" type="number" min="0" max="9007199254740991" value="0" required="required"/></div>
            </div>
            <p class="actions"><button type="submit" id="send">Send</button> <button type="button" class="second" id="stop" disabled="disabled">Stop</button>
            <span role="status" id="status" class="soft"></span></p>
            </form>
            <noscript><p>The playground needs JavaScript.</p></noscript>
            <section aria-labelledby="answers-title" id="answers" hidden="hidden"><h2 id="answers-title">Answers</h2>
            <div class="outputs" id="outputs"></div></section>
            """
        return HTMLPage(
            title: "Playground", body: body, navigation: navigation, style: FormStyle.css + Self.style,
            script: Self.script, connects: true
        ).markup.text
    }

    private func choice(_ name: String, _ method: String?, index: Int, isChecked: Bool) -> Markup {
        let check: Markup = isChecked ? " checked=\"checked\"" : ""
        let detail: Markup = method.map { " <small class=\"soft\">\($0)</small>" } ?? ""
        return """
            <label class="choice"><input type="checkbox" name="model" value="\(name)"\(check)/> <span>\(name)\(detail)</span></label>
            """
    }

    private static let style = """
        form{margin-top:1.75rem;display:grid;gap:1.25rem 2.5rem;grid-template-columns:minmax(0,1fr) minmax(0,19rem)}
        fieldset{border:0;margin:0;padding:0;min-width:0}
        .prompt-box .note{margin:.35rem 0 0}
        .prompt-box textarea{height:calc(100% - 4rem)}
        .models{max-height:19rem;overflow-y:auto}
        .choice{display:flex;gap:.6rem;align-items:baseline;font-weight:400;padding:.35rem 0;cursor:pointer;\
        overflow-wrap:anywhere}
        .choice input{width:1.05rem;height:1.05rem;flex:none;accent-color:var(--ink);position:relative;top:.15rem}
        .choice small{font-size:.8125rem}
        .settings{grid-column:1/-1;display:grid;grid-template-columns:repeat(auto-fit,minmax(11rem,1fr));gap:1rem 1.5rem;\
        align-items:end;max-width:60rem}
        .actions{grid-column:1/-1;display:flex;flex-wrap:wrap;gap:.75rem;align-items:center;max-width:none;margin:0}
        #answers h2{margin-top:2.5rem}
        .output h3{margin:0 0 .4rem;font-size:.9375rem;color:var(--m,var(--ink));overflow-wrap:anywhere}
        .output .figures{font-size:.8125rem;color:var(--soft);margin:.6rem 0 0;min-height:1.2em}
        .output[aria-busy=true] .text::after{content:"▍";color:var(--soft)}
        .output .problem{color:inherit;border-left:3px solid var(--ink);padding-left:.6rem}
        @media (max-width:48rem){form{grid-template-columns:minmax(0,1fr)}.models{max-height:none}\
        .prompt-box textarea{height:auto}.actions button{flex:1 1 8rem}.actions #status{flex-basis:100%}}
        """

    // Text of models and names go through textContent alone.
    private static let script = """
        (() => {
          const by = id => document.getElementById(id);
          const form = by("form"), send = by("send"), stop = by("stop"), status = by("status"), outputs = by("outputs");
          let control = null;
          const element = (name, className, text) => {
            const made = document.createElement(name);
            if (className) made.className = className;
            if (text) made.textContent = text;
            return made;
          };
          const seconds = value => (value / 1000).toFixed(value < 10000 ? 2 : 1) + " s";
          const column = (name, index) => {
            const box = element("section", "output m" + (1 + index % 8));
            const title = element("h3", "", name);
            title.id = "answer-" + index;
            box.setAttribute("aria-labelledby", title.id);
            box.setAttribute("aria-busy", "true");
            const text = element("p", "text"), figures = element("p", "figures", "waiting");
            box.append(title, text, figures);
            outputs.append(box);
            return {name, box, text, figures};
          };
          const events = async function* (response) {
            const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
            let rest = "";
            for (;;) {
              const {value, done} = await reader.read();
              if (done) return;
              rest += value;
              const parts = rest.split("\\n\\n");
              rest = parts.pop();
              for (const part of parts) {
                const data = part.split("\\n").filter(line => line.startsWith("data:")).map(line => line.slice(5).trim()).join("");
                if (data === "[DONE]") return;
                if (data) yield JSON.parse(data);
              }
            }
          };
          const ask = async (target, settings, signal) => {
            const start = performance.now();
            let first = null, usage = null, reason = null, pieces = 0;
            try {
              const chat = settings.kind === "chat";
              const body = {model: target.name, max_tokens: settings.tokens, temperature: settings.temperature,
                seed: settings.seed, stream: true, stream_options: {include_usage: true}};
              if (chat) body.messages = [{role: "user", content: settings.prompt}]; else body.prompt = settings.prompt;
              const response = await fetch(chat ? "/v1/chat/completions" : "/v1/completions", {
                method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body), signal});
              if (!response.ok) {
                const answer = await response.json().catch(() => null);
                throw new Error(answer?.error?.message ?? "status " + response.status);
              }
              for await (const event of events(response)) {
                if (event.error) throw new Error(event.error.message);
                if (event.usage) usage = event.usage;
                const choice = event.choices?.[0];
                if (!choice) continue;
                const piece = chat ? choice.delta?.content : choice.text;
                if (piece) {
                  first ??= performance.now() - start;
                  pieces += 1;
                  target.text.append(piece);
                  target.figures.textContent = pieces + (pieces === 1 ? " piece" : " pieces");
                }
                if (choice.finish_reason) reason = choice.finish_reason;
              }
              const all = performance.now() - start;
              const parts = [];
              if (usage) parts.push(usage.completion_tokens + (usage.completion_tokens === 1 ? " token" : " tokens"));
              if (first !== null) parts.push("first after " + seconds(first));
              parts.push("all after " + seconds(all));
              if (reason === "length") parts.push("cut off at the maximum");
              if (!target.text.textContent) target.text.append(element("span", "none", "(the end token at once)"));
              target.figures.textContent = parts.join(", ");
              return true;
            } catch (error) {
              const stopped = error.name === "AbortError";
              target.figures.textContent = stopped ? "stopped" : "";
              if (!stopped) target.box.append(element("p", "problem", error.message));
              return false;
            } finally { target.box.setAttribute("aria-busy", "false"); }
          };
          form.addEventListener("submit", async event => {
            event.preventDefault();
            if (control) return;
            const values = new FormData(form);
            const models = values.getAll("model");
            if (models.length === 0) {
              status.textContent = "Choose a model.";
              form.querySelector("[name=model]").focus();
              return;
            }
            const settings = {prompt: values.get("prompt"), kind: values.get("kind") ?? "text",
              tokens: Number(values.get("tokens")), temperature: Number(values.get("temperature")),
              seed: Number(values.get("seed"))};
            control = new AbortController();
            send.disabled = true;
            stop.disabled = false;
            by("answers").hidden = false;
            outputs.replaceChildren();
            status.textContent = "Waiting for " + models.length + (models.length === 1 ? " answer" : " answers");
            const targets = models.map(column);
            const done = await Promise.all(targets.map(target => ask(target, settings, control.signal)));
            const good = done.filter(Boolean).length;
            status.textContent = control.signal.aborted ? "Stopped." :
              good === done.length ? (good === 1 ? "The answer is complete." : "All " + good + " answers are complete.") :
              good + " of " + done.length + " answers are complete.";
            const hadFocus = document.activeElement === stop;
            control = null;
            send.disabled = false;
            stop.disabled = true;
            if (hadFocus) send.focus();
          });
          stop.addEventListener("click", () => control?.abort());
          document.addEventListener("keydown", event => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); form.requestSubmit(); }
            if (event.key === "Escape" && control) control.abort();
          });
        })();
        """
}
