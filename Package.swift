// swift-tools-version: 6.1
import PackageDescription

// `make setup` puts libtorch into a per-user cache and links it here, so that plain
// `swift build` and `swift test` need no environment variables.
let libtorch = "\(Context.packageDirectory)/.libtorch"

// The kernels are inner loops: a debug build keeps them optimized.
let kernelFlags = ["-O3", "-fno-math-errno", "-fno-trapping-math"]

let package = Package(
    name: "swift-peft",
    platforms: [.macOS(.v14)],
    products: [
        .library(name: "PEFT", targets: ["PEFT", "Training", "Experiments", "LanguageModels", "TorchNN", "Torch"]),
        .library(name: "Tokenizers", targets: ["Tokenizers"]),
        .executable(name: "peft", targets: ["PEFTCommand"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        .package(url: "https://github.com/swiftcsv/SwiftCSV", from: "0.10.0"),
    ],
    targets: [
        // Plain pointers in, plain pointers out: no libtorch.
        .target(
            name: "CKernels", cxxSettings: [.unsafeFlags(kernelFlags)],
            linkerSettings: [.linkedLibrary("dl", .when(platforms: [.linux]))]),
        .target(
            name: "CTorch",
            dependencies: ["CKernels"],
            cxxSettings: [
                // Each file includes the operators it calls: ATen/ATen.h alone is a quarter of a million lines.
                .define("AT_PER_OPERATOR_HEADERS"),
                .unsafeFlags(
                    [
                        "-isystem", "\(libtorch)/include",
                        "-isystem", "\(libtorch)/include/torch/csrc/api/include",
                    ] + kernelFlags),
            ],
            linkerSettings: [
                .unsafeFlags(["-L\(libtorch)/lib", "-Xlinker", "-rpath", "-Xlinker", "\(libtorch)/lib"]),
                .linkedLibrary("torch_cpu"), .linkedLibrary("c10"),
            ]
        ),
        .target(name: "Support"),
        // A checksum is an inner loop too.
        .target(
            name: "CHub", cSettings: [.unsafeFlags(["-O3"])],
            linkerSettings: [.linkedLibrary("dl", .when(platforms: [.linux]))]),
        .target(name: "Hub", dependencies: ["CHub", "Support"]),
        .target(name: "Torch", dependencies: ["CTorch", "Support"]),
        .target(name: "TorchNN", dependencies: ["Torch"]),
        .target(name: "Jinja", dependencies: ["Support"]),
        .target(name: "Tokenizers", dependencies: ["Jinja", "Support"]),
        .target(name: "LanguageModels", dependencies: ["TorchNN", "Tokenizers", "Hub"]),
        .target(name: "PEFT", dependencies: ["LanguageModels"]),
        .target(name: "Training", dependencies: ["Jinja", "PEFT", "SwiftCSV"]),
        .target(name: "Experiments", dependencies: ["Training"]),
        .executableTarget(
            name: "PEFTCommand",
            dependencies: [
                "Experiments", "Jinja", "Yams",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            path: "Sources/CLI"
        ),
        .executableTarget(name: "finetune-example", dependencies: ["Training"], path: "Examples/FineTune"),
        .executableTarget(name: "summarize-example", dependencies: ["Training"], path: "Examples/Summarize"),
        .executableTarget(name: "training-benchmark", dependencies: ["Training"], path: "Benchmarks/Training"),
        .executableTarget(name: "weights-benchmark", dependencies: ["Training"], path: "Benchmarks/Weights"),
        .executableTarget(name: "generation-benchmark", dependencies: ["PEFT"], path: "Benchmarks/Generation"),
        .executableTarget(name: "switching-benchmark", dependencies: ["PEFT"], path: "Benchmarks/Switching"),
        .executableTarget(name: "tokenizer-benchmark", dependencies: ["Tokenizers"], path: "Benchmarks/Tokenizers"),
        // Helpers that several test targets use.
        .target(name: "TestSupport", dependencies: ["Support"], path: "Tests/TestSupport"),
        .target(name: "TorchTestSupport", dependencies: ["TestSupport", "Torch"], path: "Tests/TorchTestSupport"),
        .testTarget(name: "CKernelsTests", dependencies: ["CKernels"]),
        .testTarget(name: "SupportTests", dependencies: ["Support", "TestSupport"]),
        .testTarget(name: "HubTests", dependencies: ["Hub", "TestSupport"], exclude: ["Server/hub_server.py"]),
        .testTarget(name: "JinjaTests", dependencies: ["Jinja"], resources: [.copy("Fixtures")]),
        .testTarget(
            name: "TorchTests", dependencies: ["TestSupport", "Torch", "TorchTestSupport"],
            resources: [.copy("Fixtures")]),
        .testTarget(name: "TorchNNTests", dependencies: ["TorchNN"], resources: [.copy("Fixtures")]),
        .testTarget(
            name: "TokenizersTests", dependencies: ["TestSupport", "Tokenizers"], resources: [.copy("Fixtures")]),
        .testTarget(
            name: "LanguageModelsTests", dependencies: ["LanguageModels", "TestSupport", "TorchTestSupport"],
            resources: [.copy("Fixtures")]),
        .testTarget(
            name: "PEFTTests", dependencies: ["PEFT", "TestSupport", "TorchTestSupport"],
            resources: [.copy("Fixtures")]),
        .testTarget(
            name: "TrainingTests", dependencies: ["TestSupport", "Training"], resources: [.copy("Fixtures")]),
        .testTarget(name: "ExperimentsTests", dependencies: ["Experiments", "TestSupport"]),
        .testTarget(name: "CommandTests", dependencies: ["PEFTCommand", "Support", "TestSupport"]),
    ],
    cxxLanguageStandard: .cxx20
)
