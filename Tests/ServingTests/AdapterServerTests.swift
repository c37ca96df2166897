import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Serving
import TestSupport
import Testing

/// What programs of other packages see of the engine.
@Suite struct AdapterServerTests {
    @Test func answersAreThoseOfTheLibrary() async throws {
        try await SmallServer.run("llama", [LoRA.self, IA3.self]) { server in
            let model = server.folder.appendingPathComponent("served")
            try FileManager.default.copyItem(at: server.modelFolder, to: model)
            try WordTokenizer.write(WordTokenizer.words(96), to: model)
            let adapters = try await AdapterServer.start(model)
            defer { adapters.stop() }
            for (name, folder) in server.adapters { try await adapters.load(name, from: folder) }
            #expect(adapters.adapters == ["ia3", "lora"])
            let prompt = server.tokenizer.decode(tokens: [7, 8, 30])
            let parameters = GenerateParameters(maxNewTokens: 12)
            for name in ["ia3", "lora", nil] {
                var text = ""
                var summary: AdapterServer.Summary?
                for try await event in try adapters.generate(prompt, adapter: name, parameters: parameters) {
                    switch event {
                    case .text(let part): text += part
                    case .end(let end): summary = end
                    }
                }
                // Greedy, as the library's default is.
                let expected = try server.offline([[7, 8, 30]], adapter: name, parameters)[0]
                #expect(text == server.tokenizer.decode(tokens: expected), "\(name ?? "")")
                #expect(summary?.promptTokens == 3 && (summary?.isCutOff ?? false) == (expected.count == 12))
            }
            #expect(throws: PEFTError.self) { try adapters.generate(prompt, adapter: "lara") }
            #expect(throws: PEFTError.self) {
                try adapters.generate(prompt, parameters: GenerateParameters(maxNewTokens: 4, beams: 2))
            }
            try await adapters.unload("lora")
            #expect(throws: PEFTError.self) { try adapters.generate(prompt, adapter: "lora") }
            await #expect(throws: PEFTError.self) { try await adapters.unload("lora") }
        }
    }
}
