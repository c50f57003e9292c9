import CoreGraphics
import Foundation
import LiteRT

/// One `.tflite` file of a bundle: a picture in, a class for each pixel out.
///
/// Not safe for several threads at once.
public final class Segmenter {
    public enum Failure: Error {
        case noSuchMode(String)
        case picture
    }

    struct Description: Decodable {
        struct Model: Decodable {
            let file: String
            let mode: String
        }
        let size: [Int]
        let classes: [String]
        let palette: [[UInt8]]
        let models: [Model]
    }

    public let height: Int
    public let width: Int
    public let classes: [String]
    /// RGB of each class.
    public let palette: [[UInt8]]

    private let environment: Environment
    private let model: CompiledModel
    private let inputs: [TensorBuffer]
    private let outputs: [TensorBuffer]

    /// - Parameters:
    ///   - bundle: the bundle's folder.
    ///   - mode: which file: "int8", "float32", ...
    public init(bundle: URL, mode: String = "int8") throws {
        let json = try Data(contentsOf: bundle.appendingPathComponent("bundle.json"))
        let info = try JSONDecoder().decode(Description.self, from: json)
        guard let entry = info.models.first(where: { $0.mode == mode }) else {
            throw Failure.noSuchMode(mode)
        }
        (height, width) = (info.size[0], info.size[1])
        (classes, palette) = (info.classes, info.palette)
        environment = try Environment()
        model = try CompiledModel(
            file: bundle.appendingPathComponent(entry.file).path,
            options: try CompiledModel.Options(), environment: environment)
        inputs = try model.createInputBuffers()
        outputs = try model.createOutputBuffers()
    }

    /// - Parameter picture: of any size; it is scaled to the net's.
    /// - Returns: `height * width` classes, row by row.
    public func run(_ picture: CGImage) throws -> [UInt8] {
        var rgba = [UInt8](repeating: 0, count: height * width * 4)
        let drawn = rgba.withUnsafeMutableBytes { bytes -> Bool in
            guard let context = CGContext(
                data: bytes.baseAddress, width: width, height: height, bitsPerComponent: 8,
                bytesPerRow: width * 4, space: CGColorSpaceCreateDeviceRGB(),
                bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
            else { return false }
            context.interpolationQuality = .high
            context.draw(picture, in: CGRect(x: 0, y: 0, width: width, height: height))
            return true
        }
        guard drawn else { throw Failure.picture }
        var rgb = [UInt8]()
        rgb.reserveCapacity(height * width * 3)
        for start in stride(from: 0, to: rgba.count, by: 4) { rgb += rgba[start..<start + 3] }
        try inputs[0].write(rgb)
        // A bundle's file has one signature, `segment`.
        try model.run(signatureIndex: 0, inputBuffers: inputs, outputBuffers: outputs)
        return try outputs[0].read()
    }
}
