package edgevit.android

import java.io.File
import java.nio.ByteBuffer

/**
 * An artifact of a target that LiteRT runs, as `edgevit compile` wrote it, opened: its folder, or its
 * manifest and a part of a file. Nothing of Android is in here, so that it runs on a desktop JVM as
 * well.
 *
 * Any thread may call; calls take turns. [close] frees the memory and waits for a call that runs.
 */
class EdgevitSession private constructor(whyNotNpu: String?, open: () -> Long) : AutoCloseable {
    private val lock = Any()
    private var handle = CLOSED

    /**
     * @param folder with manifest.json and the artifact, whose sha256 is checked.
     * @param threads of LiteRT, 1 to 256.
     * @param runtimeLibrary LiteRT: a bare name for the system's loader, or a path.
     * @param accelerator "cpu", "gpu" or "npu", which must run all of it, or opening fails.
     * @param options more runtime options by name, as docs/harness.md lists them.
     * @param whyNotNpu for the answers, where another artifact's NPU was tried before: see [RanOn].
     * @throws EdgevitException with the reason.
     */
    @JvmOverloads
    constructor(
        folder: File,
        threads: Int = 1,
        runtimeLibrary: String = LITERT,
        accelerator: String = CPU,
        options: Map<String, String> = emptyMap(),
        whyNotNpu: String? = null
    ) : this(whyNotNpu, {
        EdgevitNative.open(
            folder.path.toByteArray(Charsets.UTF_8), runtimeLibrary.toByteArray(Charsets.UTF_8),
            checked(threads), flat(options + ("accelerator" to accelerator)))
    })

    /**
     * The model lies in an open file, as an asset that is not compressed does in the APK: it is used
     * where it lies, and not copied.
     *
     * @param manifest the bytes of its manifest.json.
     * @param descriptor of the file; it stays the caller's and may be closed afterwards.
     * @param offset of the model in the file, bytes, and [length] likewise.
     * @throws EdgevitException with the reason.
     */
    @JvmOverloads
    constructor(
        manifest: ByteArray,
        descriptor: Int,
        offset: Long,
        length: Long,
        threads: Int = 1,
        runtimeLibrary: String = LITERT,
        accelerator: String = CPU,
        options: Map<String, String> = emptyMap(),
        whyNotNpu: String? = null
    ) : this(whyNotNpu, {
        EdgevitNative.openDescriptor(
            manifest, descriptor, offset, length, runtimeLibrary.toByteArray(Charsets.UTF_8),
            checked(threads), flat(options + ("accelerator" to accelerator)))
    })

    /** The side, in pixels, of the square that the network sees; 0 where it sees no square. */
    val imageSize: Int

    /** The classes, in the order of the network's logits. */
    val labels: List<String>

    /** What runs the model: "cpu", "gpu" or "npu". */
    val accelerator: String

    /** The same with the reason where the NPU was to run it: what every answer says. */
    val ranOn: RanOn

    /** What the model answers with; of a classifier the first one is [1, classes]. */
    val outputs: List<OutputTensor>

    // Filled by each call, so that a frame allocates its list of results and nothing else.
    private val indices: IntArray
    private val logits: FloatArray
    private val probabilities: FloatArray
    private val geometry = IntArray(YuvFrame.GEOMETRY)

    init {
        handle = linked(open)
        try {
            accelerator = String(EdgevitNative.accelerator(handle), Charsets.UTF_8)
            ranOn = RanOn(accelerator, whyNotNpu)
            outputs = List(EdgevitNative.outputCount(handle)) {
                OutputTensor(
                    String(EdgevitNative.outputName(handle, it), Charsets.UTF_8),
                    EdgevitNative.outputShape(handle, it).toList())
            }
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
        results(EdgevitNative.classify(
            handle, pixels, pixels.position(), pixels.limit(), width, height, rowStride,
            minOf(topK, labels.size), indices, logits, probabilities))
    }

    /**
     * The same of a camera's frame, which is converted, turned and cut here.
     *
     * @throws EdgevitException with the reason; the session can still be used.
     */
    @JvmOverloads
    fun classify(frame: YuvFrame, topK: Int = 5): List<Classification> = synchronized(lock) {
        frame.fillGeometry(geometry)
        results(EdgevitNative.classifyYuv(
            handle, frame.y.buffer, frame.u.buffer, frame.v.buffer, geometry,
            minOf(topK, labels.size), indices, logits, probabilities))
    }

    /**
     * What the last [classify] left in one of [outputs], as real numbers.
     *
     * @throws EdgevitException for another index, or before a picture was classified.
     */
    fun output(index: Int): FloatArray = synchronized(lock) {
        FloatArray(outputs.getOrNull(index)?.elementCount ?: 0).also {
            EdgevitNative.output(handle, index, it)
        }
    }

    private fun results(count: Int): List<Classification> = List(count) {
        Classification(indices[it], labels[indices[it]], logits[it], probabilities[it], ranOn)
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

        const val LITERT = "libLiteRt.so"
        const val CPU = "cpu"

        fun checked(threads: Int): Int = if (threads >= 1) threads else throw EdgevitException(
            EdgevitException.Status.BAD_INPUT, "threads is $threads; 1 to 256 can be used")

        fun flat(options: Map<String, String>): Array<ByteArray> =
            options.flatMap { listOf(it.key, it.value) }.map { it.toByteArray(Charsets.UTF_8) }
                .toTypedArray()

        fun linked(open: () -> Long): Long = try {
            open()
        } catch (missing: LinkageError) {
            throw EdgevitException(
                EdgevitException.Status.TOOL_MISSING,
                "libedgevit_jni.so cannot be loaded: $missing", missing)
        }
    }
}

/**
 * What edgevit_jni.cpp registers. Text is UTF-8, options are names and values by turns; a handle of a
 * closed session is an error.
 */
internal object EdgevitNative {
    init {
        System.loadLibrary("edgevit_jni")
    }

    @JvmStatic
    external fun open(
        folder: ByteArray,
        runtimeLibrary: ByteArray,
        threads: Int,
        options: Array<ByteArray>
    ): Long

    @JvmStatic
    external fun openDescriptor(
        manifest: ByteArray,
        descriptor: Int,
        offset: Long,
        length: Long,
        runtimeLibrary: ByteArray,
        threads: Int,
        options: Array<ByteArray>
    ): Long

    @JvmStatic
    external fun close(handle: Long)

    @JvmStatic
    external fun imageSize(handle: Long): Int

    @JvmStatic
    external fun classCount(handle: Long): Int

    @JvmStatic
    external fun label(handle: Long, classIndex: Int): ByteArray

    @JvmStatic
    external fun accelerator(handle: Long): ByteArray

    @JvmStatic
    external fun outputCount(handle: Long): Int

    @JvmStatic
    external fun outputName(handle: Long, index: Int): ByteArray

    @JvmStatic
    external fun outputShape(handle: Long, index: Int): IntArray

    /** Fills [values], which has the output's element count. */
    @JvmStatic
    external fun output(handle: Long, index: Int, values: FloatArray)

    /** As [classify], of a frame whose numbers [YuvFrame.fillGeometry] wrote. */
    @JvmStatic
    external fun classifyYuv(
        handle: Long,
        y: ByteBuffer,
        u: ByteBuffer,
        v: ByteBuffer,
        geometry: IntArray,
        topK: Int,
        indices: IntArray,
        logits: FloatArray,
        probabilities: FloatArray
    ): Int

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
