// swift-tools-version: 5.9
import PackageDescription

let package = Package(
    name: "RepViTClassifier",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [
        .library(name: "RepViTClassifier", targets: ["RepViTClassifier"])
    ],
    targets: [
        .target(
            name: "EdgevitImage",
            // core_exact.cpp includes the sources in core/, so that its pragma governs them.
            exclude: ["core"],
            publicHeadersPath: "include",
            cxxSettings: [.headerSearchPath(".")]
        ),
        .target(
            name: "RepViTClassifier",
            dependencies: ["EdgevitImage"],
            // A folder, copied as it is: Xcode compiles a .mlpackage that it finds as a resource,
            // `swift build` does not, and inside a copied folder neither looks. So the model is
            // compiled on the device, the same way whatever built the app.
            resources: [.copy("Model")]
        ),
    ],
    cxxLanguageStandard: .cxx17
)
