import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import LanguageModels

/// What `config.json` of Nemotron-H has that no other family has.
@Suite struct NemotronHTests {
    /// Published files have Python's `Infinity`, which is no JSON.
    @Test func infinityIsRead() throws {
        try withTemporaryFolder { folder in
            let text = #"{"model_type": "nemotron_h", "time_step_limit": [0.0, Infinity], "mamba_num_heads": 8}"#
            let file = folder.appendingPathComponent("config.json")
            try AtomicFile.write(text, to: file)
            let model = try #require(try ModelFolder(folder).outline() as? NemotronH)
            #expect(model.settings.stateSpace.heads == 8)
            #expect(model.configuration["time_step_limit"] == [0.0, ["__float__": "Infinity"]])
            #expect(throws: PEFTError.self) { try JSON.read(file) }
        }
    }

    @Test(arguments: [
        (#""hybrid_override_pattern": "MX""#, "'hybrid_override_pattern' is 'MX'"),
        (#""hybrid_override_pattern": """#, "'hybrid_override_pattern' is ''"),
        (#""layers_block_type": []"#, "'layers_block_type' is not a list of 1 to 1024 types"),
        (#""layers_block_type": ["moe", "conv"]"#, "'layers_block_type' has 'conv'"),
        (#""n_groups": 3"#, "'n_groups' is 3, which doesn't divide the 128 heads"),
        (#""time_step_limit": [1]"#, "'time_step_limit' is [1]"),
    ]) func invalidValuesAreNamed(field: String, problem: String) throws {
        let json = try JSON.parse(Data(#"{"model_type": "nemotron_h", \#(field)}"#.utf8), name: "config.json")
        let error = try #require(throws: PEFTError.self) {
            try ModelRegistry.outline(json, file: "config.json")
        }
        #expect(error.problem.contains(problem), "\(error.problem)")
    }
}
