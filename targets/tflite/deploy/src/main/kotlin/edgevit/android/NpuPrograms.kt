package edgevit.android

import android.content.Context
import android.os.Build

/**
 * The programs for NPUs that come with the module's AI pack: Google Play gives a phone the one for its
 * system-on-chip (SoC), at [path], and none to other phones.
 *
 * @param socs those that have one, by the name that Android tells.
 */
internal class NpuPrograms private constructor(private val path: String, private val socs: List<String>) {
    /** The program for this phone. Throws EdgevitException with the reason why there is none. */
    fun open(context: Context, threads: Int): EdgevitSession {
        val soc = socOfThisPhone()
        val program = AssetFolder(context, path, "$path.json", "$path.tflite")
        if (!program.isThere()) {
            throw EdgevitException(
                EdgevitException.Status.TOOL_MISSING,
                "the app has no assets/$path.json, the NPU program for $soc: its AI pack is not " +
                    "installed, or it did not come through Google Play")
        }
        // LiteRT loads the vendor's library from there, and that one its own.
        val libraries = context.applicationInfo.nativeLibraryDir
        return program.session(threads, "npu", mapOf("soc" to soc, "dispatch_dir" to libraries))
    }

    private fun socOfThisPhone(): String {
        if (Build.VERSION.SDK_INT < TELLS_SOC) {
            throw EdgevitException(
                EdgevitException.Status.TOOL_MISSING,
                "Android ${Build.VERSION.SDK_INT} does not tell the phone's SoC, $TELLS_SOC does")
        }
        val soc = Build.SOC_MODEL
        if (soc !in socs) {
            throw EdgevitException(
                EdgevitException.Status.TOOL_MISSING,
                "there is no NPU program for this phone's SoC ($soc), only for " + socs.joinToString())
        }
        return soc
    }

    companion object {
        private const val TELLS_SOC = 31 // Android 12

        /** Of the text that `edgevit package` writes: the path, then a SoC a line. */
        fun of(text: String): NpuPrograms {
            val lines = text.lines().filter { it.isNotEmpty() }
            return NpuPrograms(lines.first(), lines.drop(1))
        }
    }
}
