import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import LanguageModels

/// The model that comes with the project is found from other packages too, and its tokenizer goes where the model goes.
@Suite struct EmbeddedModelsTests {

    /// A program of another package lies anywhere; the library knows the checkout that it was built from.
    @Test func programsElsewhereFindTheCheckout() throws {
        let places = EmbeddedModels.places(environment: [:], program: URL(fileURLWithPath: "/opt/app/bin/app"))
        #expect(places.map(\.path).contains("/opt/app/bin/Models"))
        #expect(places.last?.path == Checkout.root.appendingPathComponent("Models").path)
        #expect(EmbeddedModels.folder("tiny-t5", in: Array(places.suffix(1))) != nil)
    }

    @Test func theProgramsNeighborhoodComesBeforeTheCheckout() throws {
        try withTemporaryFolder { folder in
            let model = folder.appendingPathComponent("Models/tiny-t5")
            try FileManager.default.createDirectory(at: model, withIntermediateDirectories: true)
            try "{}".write(to: model.appendingPathComponent("config.json"), atomically: true, encoding: .utf8)
            let places = EmbeddedModels.places(environment: [:], program: folder.appendingPathComponent("bin/app"))
                .filter { !$0.path.hasPrefix(FileManager.default.currentDirectoryPath) }
            #expect(EmbeddedModels.folder("tiny-t5", in: places)?.path == model.path)
        }
    }

    @Test func theVariableDecidesAlone() throws {
        try withTemporaryFolder { folder in
            let places = EmbeddedModels.places(environment: ["PEFT_MODELS": folder.path])
            #expect(places.map(\.path) == [folder.path])
            #expect(EmbeddedModels.folder("tiny-t5", in: places) == nil)
            let error = EmbeddedModels.missing("tiny-t5", in: places)
            #expect(error.problem == "PEFT_MODELS is \(folder.path), which has no model 'tiny-t5'")
            #expect(error.remedy?.contains("set PEFT_MODELS") == true)
        }
    }

    @Test func whereNothingIsFoundTheErrorSaysWhereWasLooked() {
        let error = EmbeddedModels.missing(
            "tiny-t5", in: ["/a/Models", "/b/Models"].map { URL(fileURLWithPath: $0) })
        #expect(error.problem.contains("/a/Models") && error.problem.contains("/b/Models"))
        #expect(!error.description.contains("did you mean"))
    }

    @Test func savingKeepsTheTokenizerAndTheSettingsOfGeneration() throws {
        try withTemporaryFolder { folder in
            let source = folder.appendingPathComponent("source")
            try FileManager.default.copyItem(at: ModelLocator.folder("tiny-t5"), to: source)
            let settings = source.appendingPathComponent("generation_config.json")
            if !FileManager.default.fileExists(atPath: settings.path) {
                try "{\"max_new_tokens\": 7}\n".write(to: settings, atomically: true, encoding: .utf8)
            }
            let model = try ModelFolder(source).load()
            let saved = folder.appendingPathComponent("saved")
            try model.save(to: saved)
            for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"]
            where FileManager.default.fileExists(atPath: source.appendingPathComponent(name).path) {
                #expect(
                    FileManager.default.contentsEqual(
                        atPath: source.appendingPathComponent(name).path,
                        andPath: saved.appendingPathComponent(name).path), "\(name)")
            }
            #expect(try !model.companionFiles().isEmpty)
            // A list of its own, an empty one too, takes the place of these files.
            let bare = folder.appendingPathComponent("bare")
            try model.save(to: bare, copying: [])
            #expect(
                try FileManager.default.contentsOfDirectory(atPath: bare.path).sorted()
                    == ["config.json", "model.safetensors"])
        }
    }
}
