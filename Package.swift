// swift-tools-version: 6.2
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
        .library(
            name: "PEFT",
            targets: ["PEFT", "Training", "Experiments", "Serving", "LanguageModels", "TorchNN", "Torch"]),
        .library(name: "PEFTTokenizers", targets: ["PEFTTokenizers"]),
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
                // Declarations of Gloo's types, which c10d's headers include.
                .headerSearchPath("Gloo"),
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
        // Modules that other packages have too bear this one's name, so that one program can use both.
        .target(name: "PEFTSupport", path: "Sources/Support"),
        // A checksum is an inner loop too.
        .target(
            name: "CHub", cSettings: [.unsafeFlags(["-O3"])],
            linkerSettings: [.linkedLibrary("dl", .when(platforms: [.linux]))]),
        .target(name: "PEFTHub", dependencies: ["CHub", "PEFTSupport"], path: "Sources/Hub"),
        .target(name: "Torch", dependencies: ["CTorch", "PEFTSupport"]),
        .target(name: "PEFTDistributed", dependencies: ["PEFTSupport", "Torch"], path: "Sources/Distributed"),
        .target(name: "TorchNN", dependencies: ["PEFTSupport", "Torch"]),
        .target(name: "PEFTJinja", dependencies: ["PEFTSupport"], path: "Sources/Jinja"),
        .target(name: "PEFTTokenizers", dependencies: ["PEFTJinja", "PEFTSupport"], path: "Sources/Tokenizers"),
        .target(
            name: "LanguageModels", dependencies: ["PEFTHub", "PEFTSupport", "PEFTTokenizers", "Torch", "TorchNN"]),
        .target(name: "PEFT", dependencies: ["LanguageModels", "PEFTSupport", "PEFTTokenizers", "Torch", "TorchNN"]),
        .target(
            name: "Training",
            dependencies: [
                "LanguageModels", "PEFT", "PEFTDistributed", "PEFTJinja", "PEFTSupport", "PEFTTokenizers", "SwiftCSV",
                "Torch", "TorchNN",
            ]),
        .target(
            name: "Experiments",
            dependencies: ["LanguageModels", "PEFT", "PEFTSupport", "PEFTTokenizers", "Torch", "TorchNN", "Training"]),
        // Many adapters over one base, without a network protocol.
        .target(
            name: "Serving",
            dependencies: ["LanguageModels", "PEFT", "PEFTSupport", "PEFTTokenizers", "Torch", "TorchNN"]),
        .executableTarget(
            name: "PEFTCommand",
            dependencies: [
                "Experiments", "LanguageModels", "PEFT", "PEFTDistributed", "PEFTHub", "PEFTJinja", "PEFTSupport",
                "PEFTTokenizers", "Torch", "TorchNN", "Training", "Yams",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ],
            path: "Sources/CLI"
        ),
        .executableTarget(
            name: "finetune-example", dependencies: ["LanguageModels", "PEFT", "Training"], path: "Examples/FineTune"),
        .executableTarget(
            name: "summarize-example", dependencies: ["LanguageModels", "PEFT", "Training"],
            path: "Examples/Summarize"
        ),
        // Helpers that several test targets use.
        .target(name: "TestSupport", dependencies: ["PEFTSupport"], path: "Tests/TestSupport"),
        .target(name: "TorchTestSupport", dependencies: ["TestSupport", "Torch"], path: "Tests/TorchTestSupport"),
        .testTarget(name: "CKernelsTests", dependencies: ["CKernels"]),
        .testTarget(name: "SupportTests", dependencies: ["PEFTSupport", "TestSupport"]),
        .testTarget(
            name: "HubTests", dependencies: ["PEFTHub", "PEFTSupport", "TestSupport"],
            exclude: ["Server/hub_server.py"]),
        .testTarget(name: "JinjaTests", dependencies: ["PEFTJinja", "PEFTSupport"], resources: [.copy("Fixtures")]),
        .testTarget(
            name: "TorchTests", dependencies: ["PEFTSupport", "TestSupport", "Torch", "TorchTestSupport"],
            resources: [.copy("Fixtures")]),
        .testTarget(
            name: "DistributedTests", dependencies: ["PEFTDistributed", "PEFTSupport", "TestSupport", "Torch"]),
        .testTarget(
            name: "TorchNNTests", dependencies: ["PEFTSupport", "Torch", "TorchNN", "TorchTestSupport"],
            resources: [.copy("Fixtures")]),
        .testTarget(
            name: "TokenizersTests", dependencies: ["PEFTSupport", "PEFTTokenizers", "TestSupport"],
            resources: [.copy("Fixtures")]),
        .testTarget(
            name: "LanguageModelsTests",
            dependencies: [
                "LanguageModels", "PEFTSupport", "PEFTTokenizers", "TestSupport", "Torch", "TorchNN",
                "TorchTestSupport",
            ],
            resources: [.copy("Fixtures")]),
        .testTarget(
            name: "PEFTTests",
            dependencies: [
                "LanguageModels", "PEFT", "PEFTSupport", "TestSupport", "Torch", "TorchNN", "TorchTestSupport",
            ],
            resources: [.copy("Fixtures")]),
        .testTarget(
            name: "TrainingTests",
            dependencies: [
                "LanguageModels", "PEFT", "PEFTJinja", "PEFTSupport", "PEFTTokenizers", "TestSupport", "Torch",
                "TorchNN", "Training",
            ],
            resources: [.copy("Fixtures")]),
        .testTarget(
            name: "ExperimentsTests",
            dependencies: [
                "Experiments", "LanguageModels", "PEFT", "PEFTSupport", "PEFTTokenizers", "TestSupport", "Torch",
                "TorchNN", "Training",
            ]),
        .testTarget(
            name: "ServingTests",
            dependencies: [
                "LanguageModels", "PEFT", "PEFTSupport", "PEFTTokenizers", "Serving", "TestSupport", "Torch",
                "TorchNN",
            ]),
        .testTarget(
            name: "CommandTests",
            dependencies: [
                "PEFTCommand", "PEFTSupport", "TestSupport", "Torch", "Training", "Yams",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
            ]),
    ],
    cxxLanguageStandard: .cxx20
)

// `make bench` builds the benchmarks; other builds need not.
if Context.environment["PEFT_BENCHMARKS"] != nil {
    let models: [Target.Dependency] = ["LanguageModels", "PEFT", "PEFTSupport", "Torch", "TorchNN"]
    package.targets += [
        .executableTarget(
            name: "training-benchmark", dependencies: models + ["Training"], path: "Benchmarks/Training"),
        .executableTarget(name: "weights-benchmark", dependencies: models + ["Training"], path: "Benchmarks/Weights"),
        .executableTarget(name: "generation-benchmark", dependencies: models, path: "Benchmarks/Generation"),
        .executableTarget(name: "switching-benchmark", dependencies: models, path: "Benchmarks/Switching"),
        .executableTarget(
            name: "tokenizer-benchmark", dependencies: ["PEFTSupport", "PEFTTokenizers"],
            path: "Benchmarks/Tokenizers"),
    ]
}

// `make server` builds the HTTP server; other builds need none of its packages. An environment variable rather than a
// trait, which would be a compilation condition of all modules and rebuild them.
if Context.environment["PEFT_SERVER"] != nil {
    package.dependencies += [
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0", traits: []),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl.git", from: "2.37.2"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
    ]
    package.products.append(.executable(name: "peft-server", targets: ["PEFTServer"]))
    package.targets.append(
        .executableTarget(
            name: "PEFTServer",
            dependencies: [
                "CHub", "LanguageModels", "PEFT", "PEFTHub", "PEFTJinja", "PEFTSupport", "PEFTTokenizers", "Serving",
                "Torch", "Training", "Yams",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HummingbirdTLS", package: "hummingbird"),
                .product(name: "Logging", package: "swift-log"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                // The pages of runs.
                "Experiments", .product(name: "GRDB", package: "GRDB.swift"),
            ],
            path: "Sources/Server"))
}
