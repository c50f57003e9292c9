// swift-tools-version: 5.9
import PackageDescription

let package = Package(
    name: "KFCN",
    platforms: [.iOS(.v15), .macOS(.v12)],
    products: [.library(name: "KFCN", targets: ["KFCN"])],
    // By path: the package sets linker flags, which Swift allows to local packages only.
    dependencies: [.package(path: "../LiteRT")],
    targets: [.target(name: "KFCN", dependencies: [.product(name: "LiteRT", package: "LiteRT")])]
)
