/// What makes a camera's frame upright.
public struct FrameOrientation: Sendable {
    /// 0, 90, 180 or 270, clockwise.
    public var degrees: Int
    /// Left and right are swapped once it is upright, as of a front camera.
    public var isMirrored: Bool

    public init(degrees: Int = 0, isMirrored: Bool = false) {
        self.degrees = degrees
        self.isMirrored = isMirrored
    }
}
