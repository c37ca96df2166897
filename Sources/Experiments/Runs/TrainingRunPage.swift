import Foundation
import PEFTSupport
import Training

/// The page of a training run: progress, figures, curves and samples. While the run goes on, a script asks for the content
/// again and replaces the parts that changed.
package struct TrainingRunPage {
    private let run: TrainingRun
    private let numbers = NumberFormat.page

    package init(_ run: TrainingRun) { self.run = run }

    package func html(navigation: Markup, liveAddress: String) -> String {
        let description = run.description
        let body: Markup = """
            <header><h1>\(run.name)</h1>
            <p class="soft">\(description.method) over \(description.model), \(counted(description.trainingExamples, "training example")) of \(description.data)</p></header>
            <p class="hidden" role="status" id="spoken"></p>
            <p class="note lost" id="lost" hidden="hidden">The server does not answer; this page shows what it said last.</p>
            <div id="live" data-address="\(liveAddress)">
            \(content)
            </div>
            <footer>Served by peft-server \(Version.current).</footer>
            """
        return HTMLPage(
            title: "\(run.name): training", body: body, navigation: navigation, style: Self.style,
            script: Self.script, connects: true
        ).markup.text
    }

    /// The parts that change.
    package var content: Markup {
        let parts: [(id: Markup, markup: Markup)] = [
            ("progress", progress), ("figures", figures), ("charts", charts), ("samples", samples),
        ]
        let state = run.state.rawValue
        let sections: [Markup] = parts.map { "<div id=\"\($0.id)\" data-state=\"\(state)\">\($0.markup)</div>" }
        return sections.joined("\n")
    }

    // MARK: Progress

    private var progress: Markup {
        let (step, total) = (run.steps.last?.step ?? 0, max(1, run.description.totalSteps))
        let state: String =
            switch run.state {
            case .running: "Running"
            case .finished: "Finished"
            case .interrupted: "Interrupted"
            case .failed: "Failed"
            }
        var text = "step \(numbers.integer(step)) of \(numbers.integer(total))"
        if run.state == .running, let left = secondsLeft { text += ", about \(numbers.duration(seconds: left)) left" }
        if let message = run.description.message { text += ": \(message)" }
        if run.state == .interrupted { text += "; add --resume to its command to continue" }
        return """
            <p class="state"><strong class="\(Markup(trusted: run.state.rawValue))">\(state)</strong> <span>\(text)</span></p>
            <progress max="\(total)" value="\(min(step, total))" aria-label="Optimizer steps">\(numbers.percent(Double(step) / Double(total)))</progress>
            """
    }

    /// From the time that the last steps took, validations included.
    private var secondsLeft: Double? {
        let recent = run.steps.suffix(50)
        guard let first = recent.first, let last = recent.last, last.step > first.step, last.time > first.time else {
            return nil
        }
        let left = run.description.totalSteps - last.step
        return (last.time - first.time) / Double(last.step - first.step) * Double(max(0, left))
    }

    // MARK: Figures

    private var figures: Markup {
        guard let last = run.steps.last else { return "<p class=\"note\">No step is complete yet.</p>" }
        var tiles: [Markup] = []
        func tile(_ name: String, _ value: String, unit: String = "", _ aside: String) {
            let unit: Markup = unit.isEmpty ? "" : " <small>\(unit)</small>"
            tiles.append(
                """
                <div class="tile"><dt>\(name)</dt><dd class="figure">\(value)\(unit)</dd><dd class="aside">\(aside)</dd></div>
                """)
        }
        let recent = run.steps.suffix(10).compactMap(\.loss)
        tile(
            "Training loss", numbers.decimal(recent.reduce(0, +) / Double(max(1, recent.count)), places: 3),
            recent.count > 1 ? "mean of the last \(recent.count) steps" : "of the first step")
        if let best = run.best, let loss = best.validationLoss {
            let latest = run.validations.last?.validationLoss ?? loss
            tile(
                "Best validation loss", numbers.decimal(loss, places: 3),
                "step \(numbers.integer(best.step)); last \(numbers.decimal(latest, places: 3))")
        }
        if let rate = last.learningRate {
            let peak = run.steps.compactMap(\.learningRate).max() ?? rate
            tile("Learning rate", numbers.rate(rate), "highest so far \(numbers.rate(peak))")
        }
        if let norm = last.gradientNorm { tile("Gradient norm", numbers.significant(norm), "before clipping") }
        if let speed = last.tokensPerSecond {
            tile("Speed", numbers.significant(speed), unit: "tokens/s", "without padding")
        }
        if let memory = last.memory {
            let peak = run.steps.compactMap(\.memory).max() ?? memory
            tile("Memory", numbers.bytes(memory), "at most \(numbers.bytes(peak))")
        }
        return "<dl class=\"keys\">\(tiles.joined("\n"))</dl>"
    }

    // MARK: Charts

    private var charts: Markup {
        guard run.steps.count > 1 else { return "" }
        func points(_ value: (RunMetrics.Row) -> Double?) -> Curves.Points {
            run.steps.compactMap { row in value(row).map { (Double(row.step), $0) } }
        }
        let losses = points(\.loss)
        var lines = [
            LineChart.Line(
                label: "training", style: Palette.blue,
                points: Curves.thinned(losses, to: losses.count > 60 ? 40 : 400),
                strands: losses.count > 60 ? [Curves.thinned(losses, to: 400)] : [])
        ]
        let validations: Curves.Points = run.validations.compactMap { row in
            row.validationLoss.map { (Double(row.step), $0) }
        }
        if !validations.isEmpty {
            lines.append(
                LineChart.Line(
                    label: "validation", style: Palette.series(0), points: Curves.thinned(validations, to: 60),
                    chosen: run.best.map { Double($0.step) }, hasMarkers: true))
        }
        var figures = [
            figure(
                "Loss",
                validations.isEmpty
                    ? "Nats per target token." : "Nats per target token; a ring marks the best validation.", lines,
                unit: "nats per token")
        ]
        // In units of a power of ten, as labels such as 0.0009995 don't fit beside the axis.
        let rates = points(\.learningRate)
        let exponent = Int(log10(max(rates.map(\.y).max() ?? 1, 1e-300)).rounded(.down))
        let scaledRates: Curves.Points = rates.map { ($0.x, $0.y / pow(10, Double(exponent))) }
        let others: [(String, String, String, Curves.Points)] = [
            ("Learning rate", "Of each optimizer step.", "in units of 1e\(exponent)", scaledRates),
            ("Gradient norm", "Global norm before clipping.", "norm", points(\.gradientNorm)),
            ("Speed", "Tokens of inputs and targets, mean since the start.", "tokens/s", points(\.tokensPerSecond)),
            ("Memory", "Resident memory of the process.", "MB", points { $0.memory.map { $0 / 1e6 } }),
        ]
        for (index, (title, caption, unit, values)) in others.enumerated() where values.count > 1 {
            figures.append(
                figure(
                    title, caption,
                    [.init(label: title, style: Palette.series(index + 1), points: Curves.thinned(values, to: 300))],
                    unit: unit))
        }
        return """
            <section aria-labelledby="curves"><h2 id="curves">Curves</h2>
            <div class="charts halves">\(figures.joined("\n"))</div></section>
            """
    }

    private func figure(_ title: String, _ caption: String, _ lines: [LineChart.Line], unit: String) -> Markup {
        let numbers = numbers
        let spoken = lines.compactMap { line in
            line.points.last { $0.y.isFinite }.map {
                "\(line.label): \(numbers.significant($0.y)) at step \(Int($0.x))"
            }
        }
        let chart = LineChart(
            lines: lines, xKind: .linear, xTitle: "step", yTitle: unit,
            description: "\(title) over steps. \(spoken.joined(separator: "; ")).", xTick: { numbers.short($0) },
            namesAtEnds: lines.count > 1)
        let items: [Markup] = lines.map { "<li>\($0.style.swatch) \($0.label)</li>" }
        let legend: Markup = lines.count > 1 ? "<ul class=\"legend\">\(items.joined())</ul>" : ""
        return """
            <figure><h3>\(title)</h3><figcaption>\(caption)</figcaption>
            <div class="drawing"><div class="wide">\(chart.draw(width: 540))</div>\
            <div class="narrow">\(chart.draw(width: 350))</div>\(legend)</div></figure>
            """
    }

    // MARK: Samples

    private var samples: Markup {
        guard let latest = run.samples.last else {
            return run.state == .running && run.validations.isEmpty
                ? ""
                : "<p class=\"note\">peft train --samples 3 shows here what the model writes for validation examples.</p>"
        }
        let blocks: [Markup] = latest.samples.enumerated().map { index, sample in
            """
            <article class="sample"><h3>Sample \(index + 1)</h3>
            <p class="text prompt">\(sample.prompt)</p>
            <div class="outputs"><div class="output target"><h4>Target</h4><p class="text">\(sample.target)</p></div>
            <div class="output m2"><h4>After step \(numbers.integer(latest.step))</h4><p class="text">\(text(sample.output))</p></div></div>
            \(earlier(index))</article>
            """
        }
        return """
            <section aria-labelledby="texts"><h2 id="texts">Validation samples</h2>
            <p class="note">Greedy continuations of the first validation examples, at each validation.</p>
            \(blocks.joined("\n"))</section>
            """
    }

    private func text(_ output: String) -> Markup {
        output.isEmpty ? "<span class=\"none\">(the end token at once)</span>" : "\(output)"
    }

    /// Outputs before the latest, newest first; equal ones in a row are one.
    private func earlier(_ index: Int) -> Markup {
        var changes: [(steps: [Int], output: String)] = []
        for snapshot in run.samples.dropLast() where index < snapshot.samples.count {
            let output = snapshot.samples[index].output
            if changes.last?.output == output {
                changes[changes.count - 1].steps.append(snapshot.step)
            } else {
                changes.append(([snapshot.step], output))
            }
        }
        guard !changes.isEmpty else { return "" }
        let items: [Markup] = changes.reversed().map { change in
            let last = change.steps.last.flatMap { $0 == change.steps[0] ? nil : "–\(numbers.integer($0))" } ?? ""
            let steps = numbers.integer(change.steps[0]) + last
            return "<dt>Step \(steps)</dt><dd class=\"text\">\(text(change.output))</dd>"
        }
        return """
            <details id="earlier-\(index)"><summary>Earlier outputs (\(changes.count))</summary>\
            <dl class="facts">\(items.joined())</dl></details>
            """
    }

    // MARK: Style and script

    private static let style = """
        .state{font-size:1.0625rem;margin:1.5rem 0 .5rem}
        .state strong{font-weight:650;margin-right:.4rem}
        .state .running::before{content:"";display:inline-block;width:.6em;height:.6em;border-radius:50%;\
        background:var(--m);margin-right:.45em}
        .state .failed{text-decoration:underline}
        progress{display:block;width:100%;max-width:46rem;height:.5rem;appearance:none;border:0;border-radius:.25rem;\
        background:var(--faint);margin:0 0 1.5rem;overflow:hidden}
        progress::-webkit-progress-bar{background:var(--faint)}
        progress::-webkit-progress-value{background:#1d5fae;border-radius:.25rem}
        progress::-moz-progress-bar{background:#1d5fae}
        @media screen and (prefers-color-scheme:dark){progress::-webkit-progress-value{background:#7db4f5}\
        progress::-moz-progress-bar{background:#7db4f5}}
        .state .running{--m:#047857}
        .lost{border-left:3px solid var(--rule);padding-left:.75rem}
        """

    // Parts are replaced only where they changed, so that open details, the focus and a selection survive.
    private static let script = """
        (() => {
          const live = document.getElementById("live");
          const spoken = document.getElementById("spoken");
          const lost = document.getElementById("lost");
          const isRunning = () => live.querySelector("[data-state=running]") !== null;
          let said = Date.now();
          const speak = now => {
            const state = live.querySelector(".state");
            if (!state || !now && Date.now() - said < 30000) return;
            said = Date.now();
            spoken.textContent = state.textContent.trim();
          };
          const update = async () => {
            const wasRunning = isRunning();
            try {
              const response = await fetch(live.dataset.address, {cache: "no-store"});
              if (!response.ok) throw new Error(response.status);
              const page = new DOMParser().parseFromString(await response.text(), "text/html");
              for (const part of Array.from(page.querySelectorAll("[data-state]"))) {
                const old = document.getElementById(part.id);
                if (!old) continue;
                old.dataset.state = part.dataset.state;
                if (old.innerHTML === part.innerHTML || old.contains(document.activeElement)) continue;
                const open = Array.from(old.querySelectorAll("details[open]"), details => details.id);
                old.innerHTML = part.innerHTML;
                for (const id of open) document.getElementById(id)?.setAttribute("open", "");
              }
              lost.hidden = true;
              speak(wasRunning !== isRunning());
            } catch (error) { lost.hidden = false; }
          };
          const loop = async () => {
            if (!document.hidden) await update();
            if (isRunning() || !lost.hidden) setTimeout(loop, 2000);
          };
          if (isRunning()) setTimeout(loop, 2000);
        })();
        """
}
