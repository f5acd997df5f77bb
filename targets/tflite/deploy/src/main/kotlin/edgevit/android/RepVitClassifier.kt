package edgevit.android

import android.content.Context
import android.graphics.Bitmap
import android.graphics.ImageFormat
import android.media.Image
import java.nio.Buffer
import java.nio.ByteBuffer

/**
 * Says what a picture shows, by the model in this module's assets.
 *
 * Making one loads the model, from where it lies in the APK (only where the app compresses it, it is
 * copied out the first time): do that off the main thread. Any thread may call; calls take turns. [close] it when it is not needed any more.
 *
 * @param threads of LiteRT, 1 to 256; more than the phone's fast cores makes it slower.
 * @param assetFolder another model's folder in the app's assets, for an app with several.
 * @param accelerator "cpu", "gpu" or "npu", which must run all of the model, or making it fails; the
 *     last two need LiteRT's plugins in the app. null: the NPU where the module has a program for this
 *     phone's, and where that fails, now or later, the CPU, with the reason in [whyNotNpu] and in every
 *     answer; the CPU in a module without such programs.
 * @throws EdgevitException with the reason.
 */
class RepVitClassifier @JvmOverloads constructor(
    context: Context,
    private val threads: Int = 1,
    assetFolder: String = "edgevit",
    accelerator: String? = null
) : AutoCloseable {
    private val folder = AssetFolder(context, assetFolder)
    private val mayFallBack = accelerator == null
    private val lock = Any()
    private var isClosed = false

    @Volatile
    private var session = open(context, accelerator)
    private var buffer = ByteBuffer.allocateDirect(0)

    /** The classes, in the order of the network's logits. */
    val labels: List<String> get() = session.labels

    /** What runs the model: "cpu", "gpu" or "npu". Each answer says it too. */
    val accelerator: String get() = session.accelerator

    /** Why not the NPU, where it was asked for and something else runs the model; else null. */
    val whyNotNpu: String? get() = session.ranOn.whyNotNpu

    /** What the model answers with. */
    val outputs: List<OutputTensor> get() = session.outputs

    /** What the last [classify] left in one of [outputs]; see [EdgevitSession.output]. */
    fun output(index: Int): FloatArray = session.output(index)

    /** The side, in pixels, of the square that the network sees; 0 where it sees no square. */
    val imageSize: Int get() = session.imageSize

    /**
     * The [topK] most probable classes of [bitmap], the most probable first.
     *
     * Hand over the whole picture, upright and in sRGB (`Options.inPreferredColorSpace`), and do
     * not resize it: that is done here, bit for bit as the accuracy was measured. A bitmap with
     * alpha holds premultiplied colours: it is seen as if it lay on black. Another configuration
     * than ARGB_8888 is converted first, which costs a copy. A buffer for the largest bitmap seen
     * is kept, so frames of one size allocate nothing but the result.
     *
     * @throws EdgevitException with the reason; the classifier can still be used.
     */
    @JvmOverloads
    fun classify(bitmap: Bitmap, topK: Int = 5): List<Classification> {
        if (bitmap.isRecycled) {
            throw EdgevitException(EdgevitException.Status.BAD_CALL, "the bitmap is recycled")
        }
        if (bitmap.config == Bitmap.Config.ARGB_8888) {
            return classifyPixels(bitmap, topK)
        }
        val converted = bitmap.copy(Bitmap.Config.ARGB_8888, false)
            ?: throw EdgevitException(
                EdgevitException.Status.BAD_INPUT,
                "a bitmap of configuration ${bitmap.config} cannot be converted to ARGB_8888")
        try {
            return classifyPixels(converted, topK)
        } finally {
            converted.recycle()
        }
    }

    /**
     * The same of pixels in memory, such as a camera's frame: of CameraX with
     * OUTPUT_IMAGE_FORMAT_RGBA_8888 and setOutputImageRotationEnabled(true) the `buffer` and
     * `rowStride` of `image.planes[0]`. More on the buffer at [EdgevitSession.classify].
     *
     * @throws EdgevitException with the reason; the classifier can still be used.
     */
    @JvmOverloads
    fun classify(
        pixels: ByteBuffer,
        width: Int,
        height: Int,
        rowStride: Int,
        topK: Int = 5
    ): List<Classification> = answered { it.classify(pixels, width, height, rowStride, topK) }

    /**
     * The same of a camera's frame of the format YUV_420_888, from an `ImageReader`, or of a CameraX
     * `ImageProxy` its `image`. Its crop is obeyed. Close it afterwards: it is not kept.
     *
     * @param rotationDegrees what makes it upright: `imageInfo.rotationDegrees`.
     * @param isMirrored as of a front camera.
     * @throws EdgevitException with the reason; the classifier can still be used.
     */
    @JvmOverloads
    fun classify(
        image: Image,
        rotationDegrees: Int,
        isMirrored: Boolean = false,
        topK: Int = 5
    ): List<Classification> {
        if (image.format != ImageFormat.YUV_420_888) {
            throw EdgevitException(
                EdgevitException.Status.BAD_INPUT,
                "an image of format ${image.format} cannot be classified, YUV_420_888 can")
        }
        val (y, u, v) = image.planes.map {
            YuvFrame.Plane(it.buffer, it.rowStride, it.pixelStride)
        }
        val rect = image.cropRect
        val crop = YuvFrame.Crop(
            rect.left, rect.top, rect.right - rect.left, rect.bottom - rect.top)
        val frame = YuvFrame(image.width, image.height, y, u, v, rotationDegrees, isMirrored, crop)
        return classify(frame, topK)
    }

    /** The same of planes from elsewhere, such as an `ImageProxy`'s own. */
    @JvmOverloads
    fun classify(frame: YuvFrame, topK: Int = 5): List<Classification> =
        answered { it.classify(frame, topK) }

    /** Frees the model's memory. Later calls throw; a second close does nothing. */
    override fun close() = synchronized(lock) {
        isClosed = true
        session.close()
    }

    // An answer of the session, or of the one that takes its place when its NPU fails.
    private fun answered(classify: (EdgevitSession) -> List<Classification>): List<Classification> {
        val used = session
        try {
            return classify(used)
        } catch (failure: EdgevitException) {
            // Another thread may have replaced, and closed, the one in use here.
            if (session === used && !leaveNpu(used, failure)) {
                throw failure
            }
        }
        return classify(session)
    }

    private fun leaveNpu(failed: EdgevitSession, failure: EdgevitException): Boolean =
        synchronized(lock) {
            val isOurs = session === failed
            val isNpus = failed.accelerator == "npu" &&
                failure.status == EdgevitException.Status.FAILED
            if (isClosed || (isOurs && !(isNpus && mayFallBack))) {
                return false
            }
            if (isOurs) {
                session = folder.session(
                    threads, "cpu", whyNotNpu = "the NPU failed while it ran: ${failure.message}")
                failed.close()
            }
            true
        }

    // ARGB_8888 is one 32-bit number a pixel, with red in its lowest byte: in memory R, G, B, A.
    private fun classifyPixels(bitmap: Bitmap, topK: Int): List<Classification> =
        synchronized(lock) {
            if (buffer.capacity() < bitmap.byteCount) {
                buffer = ByteBuffer.allocateDirect(bitmap.byteCount)
            }
            // As Buffer: a ByteBuffer's own clear() and flip() are missing before Android 9.
            val filled: Buffer = buffer
            filled.clear()
            bitmap.copyPixelsToBuffer(filled)
            filled.flip()
            classify(buffer, bitmap.width, bitmap.height, bitmap.rowBytes, topK)
        }

    private fun open(context: Context, accelerator: String?): EdgevitSession {
        val npu = folder.npuPrograms()
        if (npu == null || (accelerator != null && accelerator != "npu")) {
            return folder.session(threads, accelerator ?: "cpu")
        }
        return try {
            npu.open(context, threads)
        } catch (failure: EdgevitException) {
            if (!mayFallBack) {
                throw failure
            }
            folder.session(threads, "cpu", whyNotNpu = failure.message)
        }
    }
}
