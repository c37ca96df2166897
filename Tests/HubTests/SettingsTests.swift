import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import PEFTHub

@Suite struct SettingsTests {
    @Test func variablesMeanWhatTheyMeanToPython() throws {
        let plain = HubSettings(environment: ["HOME": "/h"])
        #expect(plain.cache.path == "/h/.cache/huggingface/hub")
        #expect(plain.endpoint == HubSettings.publicEndpoint && plain.token == nil && !plain.isOffline)
        #expect(HubSettings(environment: ["HOME": "/h", "XDG_CACHE_HOME": "/x"]).cache.path == "/x/huggingface/hub")
        #expect(HubSettings(environment: ["HOME": "/h", "HF_HOME": "~/hf"]).cache.path == "/h/hf/hub")
        let all = HubSettings(environment: [
            "HOME": "/h", "HF_HOME": "/hf", "HF_HUB_CACHE": "${ROOT}/$SUB/c", "ROOT": "/r", "SUB": "s",
            "HF_ENDPOINT": "http://mirror:8080//", "HF_TOKEN": " abc\n", "HF_HUB_OFFLINE": "yes",
            "HF_HUB_DISABLE_SYMLINKS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "true", "HF_HUB_DOWNLOAD_TIMEOUT": "30",
        ])
        #expect(all.cache.path == "/r/s/c" && all.endpoint == "http://mirror:8080")
        #expect(all.token == "abc" && all.isOffline && !all.usesSymlinks && !all.showsProgress)
        #expect(all.stallTimeout == 30)
        #expect(HubSettings(environment: ["HF_HUB_OFFLINE": "0"]).isOffline == false)
        #expect(HubSettings(environment: ["HF_TOKEN": "a", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"]).token == nil)
    }

    @Test func theTokenMayLieInAFile() throws {
        try withTemporaryFile("token", "filed\n".utf8) { file in
            let home = file.deletingLastPathComponent().path
            #expect(HubSettings(environment: ["HF_HOME": home]).token == "filed")
            #expect(HubSettings(environment: ["HF_HOME": home, "HF_TOKEN": "own"]).token == "own")
        }
    }

    @Test func patternsMatchAsPythonsDo() {
        func matches(_ pattern: String, _ name: String) -> Bool { Glob(pattern).matches(name) }
        #expect(matches("*.json", "config.json") && matches("*.json", "a/b.json") && !matches("*.json", "a.jsonl"))
        #expect(matches("a?c", "abc") && !matches("a?c", "ac"))
        #expect(matches("[a-c]x", "bx") && !matches("[!a-c]x", "bx") && matches("[!a-c]x", "dx"))
        #expect(matches("onnx/", "onnx/a/b") && !matches("onnx/", "onnx"))
        #expect(matches("[x", "[x") && matches("**", "") && matches("*a*b", "xaxxb") && !matches("*a*b", "xbxxa"))
        #expect(matches("[0-9]*_*/config.json", "1_Pooling/config.json"))
    }

    @Test func checksumsAreTheStandardOnes() {
        func sum(_ text: String, _ kind: Checksum) -> Checksum {
            var digest = Digest(for: kind, count: text.utf8.count)
            for part in text.utf8 { digest.add(Data([part])) }
            return digest.finish()
        }
        // FIPS 180-4's own examples.
        #expect(
            sum("abc", .sha256(""))
                == .sha256("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"))
        #expect(
            sum("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", .sha256(""))
                == .sha256("248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"))
        // `git hash-object` of the same bytes.
        #expect(sum("hello\n", .git("")) == .git("ce013625030ba8dba906f756967f9e9ca394464a"))
    }
}
