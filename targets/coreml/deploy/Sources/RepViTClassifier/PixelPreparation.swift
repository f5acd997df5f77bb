import CoreGraphics
import CoreVideo
import EdgevitImage

/// From an image of any size to the pixel buffer that the model takes.
///
/// Resize and crop are edgevit's own, so the pixels are those the accuracy was measured on.
struct PixelPreparation {
    let preprocessing: Manifest.Preprocessing

    /// The image's pixels in sRGB, as stored: no orientation is applied. Transparent pixels are
    /// blended with black.
    func input(from image: CGImage) throws -> CVPixelBuffer {
        let (width, height) = (image.width, image.height)
        guard width > 0, height > 0, height <= Limits.maxImagePixels / width else {
            throw RepViTClassifierError.image("\(width)x\(height) pixels, over 64 million or none")
        }
        let layout =
            CGImageAlphaInfo.noneSkipLast.rawValue | CGBitmapInfo.byteOrder32Big.rawValue
        guard let sRGB = CGColorSpace(name: CGColorSpace.sRGB),
            let context = CGContext(
                data: nil, width: width, height: height, bitsPerComponent: 8, bytesPerRow: 0,
                space: sRGB, bitmapInfo: layout),
            let pixels = context.data
        else {
            throw RepViTClassifierError.image("no memory for \(width)x\(height) pixels")
        }
        // One to one: Core Graphics converts colours here and resizes nothing.
        context.interpolationQuality = .none
        context.setBlendMode(.copy)
        context.draw(image, in: CGRect(x: 0, y: 0, width: width, height: height))
        return try withExtendedLifetime(context) {
            try prepare(
                edgevit_pixels(
                    pixels: UnsafePointer(pixels.assumingMemoryBound(to: UInt8.self)),
                    width: width, height: height, stride_bytes: context.bytesPerRow,
                    order: EDGEVIT_ORDER_RGBA, colour: 0, chroma: nil, chroma_stride_bytes: 0,
                    rotation_degrees: 0, is_mirrored: 0))
        }
    }

    /// A camera frame, its values taken as they are: kCVPixelFormatType_32BGRA, or one of the two
    /// 420 formats of two planes, whose matrix the buffer's attachment names (else BT.709).
    func input(from frame: CVPixelBuffer, _ orientation: FrameOrientation) throws -> CVPixelBuffer {
        switch CVPixelBufferGetPixelFormatType(frame) {
        case kCVPixelFormatType_32BGRA:
            return try withBytes(of: frame, .readOnly) { pixels, strideBytes in
                try prepare(
                    described(frame, orientation, pixels, strideBytes, EDGEVIT_ORDER_BGRA))
            }
        case kCVPixelFormatType_420YpCbCr8BiPlanarVideoRange:
            return try planar(frame, orientation, isFull: false)
        case kCVPixelFormatType_420YpCbCr8BiPlanarFullRange:
            return try planar(frame, orientation, isFull: true)
        default:
            throw RepViTClassifierError.image(
                "the frame is neither kCVPixelFormatType_32BGRA nor one of the two "
                    + "kCVPixelFormatType_420YpCbCr8BiPlanar formats")
        }
    }

    private func described(
        _ frame: CVPixelBuffer, _ orientation: FrameOrientation,
        _ pixels: UnsafeMutablePointer<UInt8>, _ strideBytes: Int, _ order: Int32
    ) -> edgevit_pixels {
        edgevit_pixels(
            pixels: UnsafePointer(pixels), width: CVPixelBufferGetWidth(frame),
            height: CVPixelBufferGetHeight(frame), stride_bytes: strideBytes, order: order,
            colour: 0, chroma: nil, chroma_stride_bytes: 0,
            rotation_degrees: Int32(clamping: orientation.degrees),
            is_mirrored: orientation.isMirrored ? 1 : 0)
    }

    private func planar(
        _ frame: CVPixelBuffer, _ orientation: FrameOrientation, isFull: Bool
    ) throws -> CVPixelBuffer {
        try locked(frame, .readOnly) {
            guard CVPixelBufferGetPlaneCount(frame) == 2,
                let luma = CVPixelBufferGetBaseAddressOfPlane(frame, 0),
                let chroma = CVPixelBufferGetBaseAddressOfPlane(frame, 1)
            else {
                throw RepViTClassifierError.image("the frame has not two planes in memory")
            }
            var image = described(
                frame, orientation, luma.assumingMemoryBound(to: UInt8.self),
                CVPixelBufferGetBytesPerRowOfPlane(frame, 0), EDGEVIT_ORDER_NV12)
            image.chroma = UnsafePointer(chroma.assumingMemoryBound(to: UInt8.self))
            image.chroma_stride_bytes = CVPixelBufferGetBytesPerRowOfPlane(frame, 1)
            image.colour = colour(of: frame, isFull: isFull)
            return try prepare(image)
        }
    }

    private func colour(of frame: CVPixelBuffer, isFull: Bool) -> Int32 {
        let matrix = CVBufferCopyAttachment(frame, kCVImageBufferYCbCrMatrixKey, nil) as? String
        if matrix == kCVImageBufferYCbCrMatrix_ITU_R_601_4 as String {
            return isFull ? EDGEVIT_COLOUR_BT601_FULL : EDGEVIT_COLOUR_BT601_LIMITED
        }
        return isFull ? EDGEVIT_COLOUR_BT709_FULL : EDGEVIT_COLOUR_BT709_LIMITED
    }

    private func prepare(_ image: edgevit_pixels) throws -> CVPixelBuffer {
        let size = preprocessing.imageSize
        var image = image
        var settings = self.settings
        let sizeBytes = size.height * size.width * (isGrey ? 1 : 3)
        var prepared = [UInt8](repeating: 0, count: sizeBytes)
        let messageSizeBytes = 256
        var message = [CChar](repeating: 0, count: messageSizeBytes)
        let status = edgevit_prepare(
            &image, &settings, &prepared, sizeBytes, &message, messageSizeBytes)
        guard status == EDGEVIT_IMAGE_OK else {
            let reason = message.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
            throw RepViTClassifierError.image(reason)
        }
        return try pixelBuffer(prepared, size)
    }

    private var isGrey: Bool { preprocessing.channels == .grey }

    private var settings: edgevit_preprocessing {
        let target = preprocessing.resizeSize ?? preprocessing.imageSize
        let color = padColor
        return edgevit_preprocessing(
            height: Int32(preprocessing.imageSize.height),
            width: Int32(preprocessing.imageSize.width),
            resize: resize,
            resize_height: Int32(target.height), resize_width: Int32(target.width),
            interpolation: interpolation,
            antialias: preprocessing.antialias == false ? 0 : 1,
            channels: isGrey
                ? EDGEVIT_GREY : preprocessing.channels == .bgr ? EDGEVIT_BGR : EDGEVIT_RGB,
            pads_after: preprocessing.padPosition == .topLeft ? 1 : 0,
            pad_color: (color[0], color[1], color[2], color[3]))
    }

    private var resize: Int32 {
        switch preprocessing.resize ?? .shorter {
        case .exact: return EDGEVIT_RESIZE_EXACT
        case .fit: return EDGEVIT_RESIZE_FIT
        case .shorter:
            guard let target = preprocessing.resizeSize else { return EDGEVIT_RESIZE_NONE }
            return target.height == target.width ? EDGEVIT_RESIZE_SHORTER : EDGEVIT_RESIZE_FILL
        }
    }

    private var interpolation: Int32 {
        switch preprocessing.interpolation {
        case .bicubic: return EDGEVIT_BICUBIC
        case .bilinear: return EDGEVIT_BILINEAR
        case .nearest: return EDGEVIT_NEAREST
        case .box: return EDGEVIT_BOX
        case .area: return EDGEVIT_AREA
        }
    }

    /// Of four channels: one value is that of all, none is black.
    private var padColor: [UInt8] {
        let given = preprocessing.padColor ?? []
        return (0..<4).map { channel in
            UInt8(clamping: given.count == 1 ? given[0] : channel < given.count ? given[channel] : 0)
        }
    }

    private func pixelBuffer(_ pixels: [UInt8], _ size: Manifest.Sides) throws -> CVPixelBuffer {
        var created: CVPixelBuffer?
        let attributes =
            [kCVPixelBufferIOSurfacePropertiesKey: [:] as CFDictionary] as CFDictionary
        let format = isGrey ? kCVPixelFormatType_OneComponent8 : kCVPixelFormatType_32BGRA
        let status = CVPixelBufferCreate(
            kCFAllocatorDefault, size.width, size.height, format, attributes, &created)
        guard status == kCVReturnSuccess, let buffer = created else {
            throw RepViTClassifierError.image("no pixel buffer: CVReturn \(status)")
        }
        try withBytes(of: buffer, []) { bytes, strideBytes in
            pixels.withUnsafeBufferPointer { source in
                for y in 0..<size.height {
                    for x in 0..<size.width {
                        if isGrey {
                            bytes[y * strideBytes + x] = source[y * size.width + x]
                            continue
                        }
                        let from = (y * size.width + x) * 3
                        let to = y * strideBytes + x * 4
                        bytes[to] = source[from + 2]
                        bytes[to + 1] = source[from + 1]
                        bytes[to + 2] = source[from]
                        bytes[to + 3] = 255
                    }
                }
            }
        }
        return buffer
    }

    /// Calls `body` with the locked bytes and the stride from one row to the next.
    private func withBytes<Value>(
        of buffer: CVPixelBuffer, _ flags: CVPixelBufferLockFlags,
        _ body: (UnsafeMutablePointer<UInt8>, Int) throws -> Value
    ) throws -> Value {
        try locked(buffer, flags) {
            guard let base = CVPixelBufferGetBaseAddress(buffer) else {
                throw RepViTClassifierError.image("the pixel buffer has no memory")
            }
            return try body(
                base.assumingMemoryBound(to: UInt8.self), CVPixelBufferGetBytesPerRow(buffer))
        }
    }

    private func locked<Value>(
        _ buffer: CVPixelBuffer, _ flags: CVPixelBufferLockFlags, _ body: () throws -> Value
    ) throws -> Value {
        let status = CVPixelBufferLockBaseAddress(buffer, flags)
        guard status == kCVReturnSuccess else {
            throw RepViTClassifierError.image("the pixel buffer is in use: CVReturn \(status)")
        }
        defer { CVPixelBufferUnlockBaseAddress(buffer, flags) }
        return try body()
    }
}
