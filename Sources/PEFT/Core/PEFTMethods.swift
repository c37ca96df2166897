import PEFTSupport
import Synchronization

/// All methods, in the order in which help lists them. To add a method, add a file in `Methods/` and a line here, or
/// call ``PEFTMethods/register(_:)`` from another package.
public enum PEFTMethods {
    static let builtIn: [any PEFTMethod.Type] = [
        LoRA.self, QLoRA.self, RsLoRA.self, LoRAPlus.self, DoRA.self, PiSSA.self, OLoRA.self, EVA.self, LoftQ.self,
        QALoRA.self, ALoRA.self, MiCA.self, KaSA.self, LoRAXS.self,
        GLoRA.self, PEANuT.self, DEFT.self, BEFT.self, TinyLoRA.self, UniLoRA.self, OSF.self, Supertuning.self,
        PSOFT.self, FRoD.self, Cartridge.self, AdaptionPrompt.self,
        AdaLoRA.self, VeRA.self, LoHa.self, LoKr.self, OFT.self, BOFT.self, IA3.self, TrainableTokens.self,
        MiSS.self, HiRA.self, SHiRA.self, GraLoRA.self, C3A.self, RandLoRA.self, DeLoRA.self, RoAd.self,
        FourierFT.self,
        WaveFT.self, VBLoRA.self, PVeRA.self, HRA.self, Poly.self,
        PromptTuning.self, CPT.self, PTuning.self, PrefixTuning.self, MultitaskPromptTuning.self,
        Houlsby.self, Pfeiffer.self, ParallelAdapters.self,
        LayerNormTuning.self, BitFit.self, Selective.self, HeadTraining.self, FullFineTuning.self,
    ]

    /// Methods whose adapters are made of others (`peft combine`): files have them, and training doesn't begin with them.
    static let composed: [any PEFTMethod.Type] = [ArrowRouting.self, BottleneckComposition.self]

    private static let registered = Mutex<[any PEFTMethod.Type]>([])

    /// Built-in and registered methods.
    public static var all: [any PEFTMethod.Type] { builtIn + registered.withLock { $0 } }

    /// Registers a method for lookup by name, in files and on the command line.
    public static func register(_ method: any PEFTMethod.Type) {
        registered.withLock { methods in
            if !methods.contains(where: { $0 == method }) { methods.append(method) }
        }
    }

    /// The method with a given name.
    /// - Throws: ``PEFTError`` with the nearest match for an unknown name.
    public static func named(_ name: String) throws -> any PEFTMethod.Type {
        if let method = all.first(where: { $0.name == name.lowercased() }) { return method }
        let names = all.map { $0.name }
        let hint = nearestName(to: name, in: names).map { "did you mean '\($0)'?" }
        throw PEFTError("unknown method '\(name)'", remedy: hint ?? "use one of \(names.joined(separator: ", "))")
    }

    /// The method that an `adapter_config.json` belongs to.
    /// - Throws: ``PEFTError`` if its `peft_type` is missing or unsupported.
    package static func method(of json: [String: JSON], file: String) throws -> any PEFTMethod.Type {
        guard let type = json["peft_type"]?.string else {
            throw PEFTError("\(file) has no 'peft_type'", remedy: "pass the adapter_config.json of an adapter")
        }
        let known = all + composed
        let candidates = known.filter { $0.peftType == type.uppercased() }
        // Variants come after their base method and recognize their own files.
        if let method = candidates.last(where: { $0.recognizes(json) }) ?? candidates.first { return method }
        var names: [String] = []
        for name in known.compactMap({ $0.peftType }) where !names.contains(name) { names.append(name) }
        throw PEFTError(
            "unsupported peft_type '\(type)'", remedy: "supported types are \(names.joined(separator: ", "))")
    }
}
