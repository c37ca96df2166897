import CTorch
import PEFTSupport

/// The device of a tensor's elements.
public enum Device: Hashable, Sendable, CustomStringConvertible {
    case cpu
    case cuda(Int)
    case mps
    /// Shapes without elements: a model on `meta` can be counted and planned, and uses no memory.
    case meta

    /// Parses `cpu`, `cuda`, `cuda:1`, `mps`.
    /// - Throws: ``PEFTError`` for an unknown device, or one that this libtorch doesn't support.
    public init(_ name: String) throws {
        switch name.split(separator: ":", maxSplits: 1).map(String.init) {
        case ["cpu"]: self = .cpu
        case ["mps"]: self = .mps
        case ["cuda"]: self = .cuda(0)
        case let parts where parts.first == "cuda" && parts.count == 2 && Int(parts[1]).map({ $0 >= 0 }) == true:
            self = .cuda(Int(parts[1]) ?? 0)
        default: throw PEFTError("unknown device '\(name)'", remedy: "use cpu, cuda, cuda:N or mps")
        }
        if case .cuda = self, !ct_cuda_available() {
            throw PEFTError(
                "no CUDA device is available",
                remedy: "use --device cpu, or set PEFT_LIBTORCH to a CUDA build of PyTorch")
        }
        if case .mps = self, !ct_mps_available() {
            throw PEFTError("no Apple GPU (MPS) is available", remedy: "use --device cpu")
        }
    }

    /// The name that ``init(_:)`` takes, such as `cpu` or `cuda:0`.
    public var description: String {
        switch self {
        case .cpu: "cpu"
        case .cuda(let index): "cuda:\(index)"
        case .mps: "mps"
        case .meta: "meta"
        }
    }

    var raw: CTDevice {
        switch self {
        case .cpu: CT_CPU
        case .cuda: CT_CUDA
        case .mps: CT_MPS
        case .meta: CT_META
        }
    }

    var index: Int32 { if case .cuda(let index) = self { Int32(index) } else { 0 } }

    init(raw: CTDevice, index: Int32) {
        switch raw {
        case CT_CUDA: self = .cuda(Int(index))
        case CT_MPS: self = .mps
        case CT_META: self = .meta
        default: self = .cpu
        }
    }
}
