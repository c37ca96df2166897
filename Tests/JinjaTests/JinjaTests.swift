import Foundation
import PEFTSupport
import Testing

@testable import PEFTJinja

/// Against what transformers renders; the fixtures' script is `make_jinja_fixtures.py`.
@Suite struct JinjaTests {
    private static let noon = Date(timeIntervalSince1970: 1_700_000_000)

    private func fixture(_ name: String) throws -> JinjaDictionary {
        let file = try #require(Bundle.module.url(forResource: name, withExtension: "json", subdirectory: "Fixtures"))
        let text = try String(contentsOf: file, encoding: .utf8)
        return try #require(JinjaValue(json: text, name: name).dictionary)
    }

    private func variables(_ dictionary: JinjaDictionary) -> [String: JinjaValue] {
        Dictionary(uniqueKeysWithValues: dictionary.entries.map { ($0.key.text ?? "", $0.value) })
    }

    private func rendering(_ source: String, _ variables: [String: JinjaValue] = [:]) throws
        -> JinjaTemplate.Rendering
    {
        try JinjaTemplate(source).render(variables, now: Self.noon)
    }

    @Test func expressionsAndStatementsEqualPythons() throws {
        let fixture = try fixture("expressions")
        let values = variables(try #require(fixture["variables"]?.dictionary))
        let cases = try #require(fixture["cases"]?.elements)
        #expect(cases.count > 200)
        for entry in cases {
            let entry = try #require(entry.dictionary)
            let source = try #require(entry["template"]?.text)
            guard !source.contains("strftime_now") else { continue }
            if let text = entry["text"]?.text {
                let result = Result { try rendering(source, values) }
                #expect(try result.get().text.utf8.elementsEqual(text.utf8), "\(source): \(result), not \(text)")
            } else {
                #expect(throws: PEFTError.self, "\(source)") { try rendering(source, values) }
            }
        }
    }

    @Test func whatIsNotSupportedIsNamed() throws {
        let fixture = try fixture("expressions")
        let values = variables(try #require(fixture["variables"]?.dictionary))
        for (source, word) in try #require(fixture["unsupported"]?.dictionary).entries {
            let error = try #require(throws: PEFTError.self) { try rendering(source.text ?? "", values) }
            #expect(error.problem.contains(word.text ?? "?"), "\(error)")
            #expect(error.problem.contains("line 1"), "\(error)")
        }
    }

    @Test func chatTemplatesEqualTransformers() throws {
        let fixture = try fixture("chats")
        let chats = try #require(fixture["chats"]?.elements)
        var (compared, spans) = (0, 0)
        for (name, source) in try #require(fixture["templates"]?.dictionary).entries {
            let template = try JinjaTemplate(try #require(source.text), name: name.text ?? "")
            let results = try #require(fixture["results"]?.dictionary?[name.text ?? ""]?.elements)
            for (index, (chat, expected)) in zip(chats, results).enumerated() {
                let (values, expected) = (try chatVariables(chat), try #require(expected.dictionary))
                guard let text = expected["text"]?.text else {
                    #expect(throws: PEFTError.self, "\(name) \(index)") {
                        try template.render(values, now: Self.noon)
                    }
                    continue
                }
                let result = try template.render(values, now: Self.noon)
                #expect(result.text.utf8.elementsEqual(text.utf8), "\(name) \(index): \(result.text)")
                let places = result.generated.map {
                    JinjaValue.list([.integer($0.lowerBound), .integer($0.upperBound)])
                }
                #expect(expected["generated"]?.isEqual(to: .list(places)) == true, "\(name) \(index)")
                (compared, spans) = (compared + 1, spans + places.count)
            }
        }
        #expect(compared > 100 && spans > 10)
    }

    /// What transformers gives a template: no keys that are null, and reasoning under all its names.
    private func chatVariables(_ chat: JinjaValue) throws -> [String: JinjaValue] {
        var values = variables(try #require(chat.dictionary))
        values["messages"] = .list(
            try #require(values["messages"]?.elements).map { message in
                var kept = JinjaDictionary()
                let entries = message.dictionary?.entries.filter { !$0.value.isNone } ?? []
                if let thinking = message.dictionary?["reasoning_content"] { kept["thinking"] = thinking }
                for (key, value) in entries { kept[key.text ?? ""] = value }
                return .dictionary(kept)
            })
        for name in ["tools", "documents"] { values[name] = values[name] ?? JinjaValue.none }
        values["add_generation_prompt"] = values["add_generation_prompt"] ?? .boolean(false)
        values["bos_token"] = .string("<s>")
        values["eos_token"] = .string("</s>")
        return values
    }

    @Test func timesAreLocal() throws {
        let format = DateFormatter()
        format.locale = Locale(identifier: "en_US_POSIX")
        format.dateFormat = "yyyy-MM-dd HH:mm"
        let text = try rendering("{{ strftime_now('%Y-%m-%d %H:%M') }}").text
        #expect(text == format.string(from: Self.noon))
    }

    /// A template is somebody else's code.
    @Test(arguments: [
        ("{% for i in range(99999) %}{% set x = range(99999) | list %}{% endfor %}", "computation steps"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "deep"),
        ("{% set ns = namespace(x=[]) %}{% for i in range(9999) %}{% set ns.x = [ns.x] %}{% endfor %}", "deep"),
        (
            "{% set ns = namespace(x=0) %}{% for i in range(9999) %}{% set ns.x = namespace(y=ns.x) %}{% endfor %}",
            "namespaces"
        ),
        ("{% set ns = namespace(x=0) %}{% set ns.x = ns %}{{ ns }}", "deep"),
        ("{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", "long"),
        ("{% set ns = namespace(x='a') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}", "long"),
        ("{{ 'abc' * 99999999 }}", "long"), ("{{ 'a'.center(999999999) }}", "long"),
        ("{{ [1] | batch(99999999, 0) | list }}", "computation steps"),
    ])
    func limits(source: String, word: String) throws {
        let error = try #require(throws: PEFTError.self) { try rendering(source) }
        #expect(error.problem.contains(word) && error.problem.contains("line 1"), "\(error)")
    }

    @Test func deepSourcesAreRefused() {
        for (open, close) in [("(", ")"), ("[", "]"), ("-", ""), ("not ", ""), ("{1: ", "}")] {
            let source =
                "{{ " + String(repeating: open, count: 5000) + "1" + String(repeating: close, count: 5000) + " }}"
            #expect(throws: PEFTError.self) { try JinjaTemplate(source) }
        }
        for chain in [
            "1" + String(repeating: " + 1", count: 5000), "a" + String(repeating: ".b", count: 5000),
            "a" + String(repeating: " | d", count: 5000), "a" + String(repeating: "()", count: 5000),
        ] {
            #expect(throws: PEFTError.self) { try JinjaTemplate("{{ \(chain) }}") }
        }
        let blocks = String(repeating: "{% if 1 %}", count: 5000) + String(repeating: "{% endif %}", count: 5000)
        #expect(throws: PEFTError.self) { try JinjaTemplate(blocks) }
    }

    @Test func errorsNameTheLine() throws {
        let source = "a\n{% for x in y %}\n{{ x }}\n{% endfor %}\n{{ z.w }}\n"
        let error = try #require(throws: PEFTError.self) {
            try JinjaTemplate(source, name: "chat_template.jinja").render([:])
        }
        #expect(error.problem == "chat_template.jinja line 5: 'z' is undefined")
        let raised = try #require(throws: PEFTError.self) {
            try rendering("{% macro m(x) %}\n{{ raise_exception('no ' ~ x) }}{% endmacro %}\n\n{{ m(1) }}")
        }
        #expect(raised.problem == "the template line 2: the template raised an exception: no 1")
    }

    /// Random damage ends in an error or a text, never in a crash.
    @Test func damagedTemplatesDoNotCrash() throws {
        let fixture = try fixture("chats")
        let templates = try #require(fixture["templates"]?.dictionary).entries.compactMap { $0.value.text }
        let values = try chatVariables(try #require(fixture["chats"]?.elements)[1])
        var random = SeededRandom(seed: 3)
        var refused = 0
        for _ in 0..<300 {
            var bytes = Array(templates[random.below(templates.count)].utf8.prefix(900))
            for _ in 0...random.below(4) {
                let place = random.below(bytes.count)
                switch random.below(3) {
                case 0: bytes.remove(at: place)
                case 1: bytes.insert(bytes[random.below(bytes.count)], at: place)
                default: bytes.swapAt(place, random.below(bytes.count))
                }
            }
            do { _ = try rendering(String(decoding: bytes, as: UTF8.self), values) } catch is PEFTError {
                refused += 1
            }
        }
        #expect(refused > 100)
    }
}
