package edgevit.android

import java.io.File
import java.nio.ByteBuffer

/**
 * An artifact folder that `edgevit compile --target tflite` wrote, opened. Nothing of Android is in
 * here, so that it runs on a desktop JVM as well.
 *
 * Any thread may call; calls take turns. [close] frees the memory and waits for a call that runs.
 *
 * @param folder with manifest.json and the artifact, whose sha256 is checked.
 * @param threads of LiteRT, 1 to 256.
 * @param runtimeLibrary LiteRT: a bare name for the system's loader, or a path.
 * @throws EdgevitException with the reason.
 */
class EdgevitSession @JvmOverloads constructor(
    folder: File,
    threads: Int = 1,
    runtimeLibrary: String = "libLiteRt.so"
) : AutoCloseable {
    private val lock = Any()
    private var handle = CLOSED

    /** The side, in pixels, of the square that the network sees; 0 where it sees no square. */
    val imageSize: Int

    /** The classes, in the order of the network's logits. */
    val labels: List<String>

    // Filled by each call, so that a frame allocates its list of results and nothing else.
    private val indices: IntArray
    private val logits: FloatArray
    private val probabilities: FloatArray

    init {
        if (threads < 1) {
            throw EdgevitException(
                EdgevitException.Status.BAD_INPUT, "threads is $threads; 1 to 256 can be used")
        }
        handle = open(folder, runtimeLibrary, threads)
        try {
            imageSize = EdgevitNative.imageSize(handle)
            val count = EdgevitNative.classCount(handle)
            labels = List(count) { String(EdgevitNative.label(handle, it), Charsets.UTF_8) }
            indices = IntArray(count)
            logits = FloatArray(count)
            probabilities = FloatArray(count)
        } catch (failure: Throwable) {
            close()
            throw failure
        }
    }

    /**
     * The [topK] most probable classes of a picture, the most probable first; all of them where
     * there are fewer. Of equal logits the lower index comes first.
     *
     * The picture lies in [pixels] from its position on, as RGBA bytes, and must end before its
     * limit; the position is not moved. It has to be upright and in sRGB's colours. Alpha is not
     * looked at. Any size will do: it is resized and cropped bit for bit as the accuracy was
     * measured, so do not resize it before.
     *
     * @param pixels a direct buffer.
     * @param rowStride bytes from one row to the next, 4 * [width] or more.
     * @throws EdgevitException with the reason; the session can still be used.
     */
    @JvmOverloads
    fun classify(
        pixels: ByteBuffer,
        width: Int,
        height: Int,
        rowStride: Int,
        topK: Int = 5
    ): List<Classification> = synchronized(lock) {
        val count = EdgevitNative.classify(
            handle, pixels, pixels.position(), pixels.limit(), width, height, rowStride,
            minOf(topK, labels.size), indices, logits, probabilities)
        List(count) {
            Classification(indices[it], labels[indices[it]], logits[it], probabilities[it])
        }
    }

    /** Frees the session's memory. Later calls of [classify] throw; a second close does nothing. */
    override fun close() = synchronized(lock) {
        val closing = handle
        handle = CLOSED
        if (closing != CLOSED) {
            EdgevitNative.close(closing)
        }
    }

    // java.lang.ref.Cleaner is there as of API 33 only. For whoever forgot to close().
    @Suppress("unused")
    protected fun finalize() = close()

    private companion object {
        const val CLOSED = 0L // no handle is 0

        fun open(folder: File, runtimeLibrary: String, threads: Int): Long = try {
            EdgevitNative.open(
                folder.path.toByteArray(Charsets.UTF_8),
                runtimeLibrary.toByteArray(Charsets.UTF_8),
                threads)
        } catch (missing: LinkageError) {
            throw EdgevitException(
                EdgevitException.Status.TOOL_MISSING,
                "libedgevit_jni.so cannot be loaded: $missing", missing)
        }
    }
}

/** What edgevit_jni.cpp registers. Text is UTF-8; a handle of a closed session is an error. */
internal object EdgevitNative {
    init {
        System.loadLibrary("edgevit_jni")
    }

    @JvmStatic
    external fun open(folder: ByteArray, runtimeLibrary: ByteArray, threads: Int): Long

    @JvmStatic
    external fun close(handle: Long)

    @JvmStatic
    external fun imageSize(handle: Long): Int

    @JvmStatic
    external fun classCount(handle: Long): Int

    @JvmStatic
    external fun label(handle: Long, classIndex: Int): ByteArray

    /** Fills the first entries of the three arrays, which have room for [topK]; how many. */
    @JvmStatic
    external fun classify(
        handle: Long,
        pixels: ByteBuffer,
        begin: Int,
        end: Int,
        width: Int,
        height: Int,
        rowStride: Int,
        topK: Int,
        indices: IntArray,
        logits: FloatArray,
        probabilities: FloatArray
    ): Int
}
