package edgevit.android

import java.nio.ByteBuffer

/**
 * A camera's frame of the format YUV_420_888, as `android.media.Image` and CameraX's `ImageProxy` give
 * it: [y], [u] and [v] are its planes 0, 1 and 2. Nothing is copied.
 *
 * @param width pixels of the whole frame, as it lies in memory; [height] likewise.
 * @param rotationDegrees 0, 90, 180 or 270, clockwise: what makes it upright
 *     (`imageInfo.rotationDegrees`).
 * @param isMirrored left and right are swapped once it is upright, as of a front camera.
 * @param crop the part to look at, in pixels as they lie in memory; null: all of it (`cropRect`).
 * @param colour what the numbers mean; Android's cameras give BT.601, full range.
 */
class YuvFrame @JvmOverloads constructor(
    val width: Int,
    val height: Int,
    val y: Plane,
    val u: Plane,
    val v: Plane,
    val rotationDegrees: Int = 0,
    val isMirrored: Boolean = false,
    val crop: Crop? = null,
    val colour: Colour = Colour.BT601_FULL
) {
    /**
     * One plane, from its buffer's position to its limit.
     *
     * @param buffer a direct buffer.
     * @param rowStride bytes from one row to the next; [pixelStride] from one value to the next.
     */
    class Plane(val buffer: ByteBuffer, val rowStride: Int, val pixelStride: Int)

    /** Pixels, counted from the left and the top. */
    class Crop(val left: Int, val top: Int, val width: Int, val height: Int)

    /** The numbers are those of edgevit.h. */
    enum class Colour(internal val code: Int) {
        BT601_LIMITED(0),
        BT601_FULL(1),
        BT709_LIMITED(2),
        BT709_FULL(3)
    }

    // In the order that edgevit_jni.cpp reads.
    internal fun fillGeometry(into: IntArray) {
        var next = 0
        for (plane in arrayOf(y, u, v)) {
            into[next++] = plane.buffer.position()
            into[next++] = plane.buffer.limit()
            into[next++] = plane.rowStride
            into[next++] = plane.pixelStride
        }
        into[next++] = width
        into[next++] = height
        into[next++] = rotationDegrees
        into[next++] = if (isMirrored) 1 else 0
        into[next++] = colour.code
        into[next++] = crop?.left ?: 0
        into[next++] = crop?.top ?: 0
        into[next++] = crop?.width ?: width
        into[next] = crop?.height ?: height
    }

    internal companion object {
        const val GEOMETRY = 21
    }
}
