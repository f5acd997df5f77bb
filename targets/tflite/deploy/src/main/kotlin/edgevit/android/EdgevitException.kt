package edgevit.android

/** Everything that goes wrong in this module, with the kind of error that libedgevit names. */
class EdgevitException internal constructor(
    val status: Status,
    message: String,
    cause: Throwable? = null
) : RuntimeException(message, cause) {

    // Called by edgevit_jni.cpp.
    internal constructor(code: Int, utf8: ByteArray) :
        this(Status.values().first { it.code == code }, String(utf8, Charsets.UTF_8))

    /** The codes of edgevit.h, which says more about each. */
    enum class Status(val code: Int) {
        /** The runtime refused a call, or something inside went wrong. */
        FAILED(1),

        /** Manifest, artifact, option or image cannot be used. */
        BAD_INPUT(2),

        /** A mistake of the caller: a wrong size, a buffer too small, a closed session. */
        BAD_CALL(3),

        /** libLiteRt.so, or this module's own library, is not in the app or cannot be loaded. */
        TOOL_MISSING(4),

        /** Another call uses the session. Calls of this module wait for their turn instead. */
        BUSY(5),

        OUT_OF_MEMORY(6)
    }
}
