package edgevit.android

import android.content.Context
import android.content.res.AssetFileDescriptor
import android.content.res.AssetManager
import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.io.RandomAccessFile
import java.net.URLEncoder
import java.security.MessageDigest

/**
 * An artifact in the app's assets: where its model lies in the APK, or, where the app compresses it,
 * as files.
 *
 * The copy is made once, under the sha256 of its manifest, which names the model's sha256; that one
 * is checked at every opening. A folder of that name is complete: it gets the name when all is
 * written. What an earlier version of the app left is removed.
 *
 * @param name of the folder in the assets, and of the copy.
 */
internal class AssetFolder(
    context: Context,
    name: String,
    private val manifest: String = "$name/$MANIFEST",
    private val model: String = "$name/$MODEL"
) {
    private val assets: AssetManager = context.assets
    private val npu = "$name/$NPU"
    private val base = File(
        context.noBackupFilesDir, "edgevit/assets-" + URLEncoder.encode(name, "UTF-8"))

    /** The artifact, opened. Throws EdgevitException with the reason. */
    fun session(
        threads: Int,
        accelerator: String,
        options: Map<String, String> = emptyMap(),
        whyNotNpu: String? = null
    ): EdgevitSession {
        fun copied(anew: Boolean) = EdgevitSession(
            unpack(anew), threads, accelerator = accelerator, options = options,
            whyNotNpu = whyNotNpu)
        openModel()?.use {
            return EdgevitSession(
                readAsset(manifest), it.parcelFileDescriptor.fd, it.startOffset, it.length, threads,
                accelerator = accelerator, options = options, whyNotNpu = whyNotNpu)
        }
        return try {
            copied(anew = false)
        } catch (failure: EdgevitException) {
            // A copy that storage damaged is made again; assets that are no artifact fail again.
            if (failure.status != EdgevitException.Status.BAD_INPUT) {
                throw failure
            }
            copied(anew = true)
        }
    }

    /** The programs for NPUs beside it; null where the module is not made for any. */
    fun npuPrograms(): NpuPrograms? = try {
        assets.open(npu).use { NpuPrograms.of(String(it.readBytes(), Charsets.UTF_8)) }
    } catch (none: IOException) {
        null
    }

    /** Whether its manifest is in the app. */
    fun isThere(): Boolean = try {
        assets.open(manifest).close()
        true
    } catch (none: IOException) {
        false
    }

    /** The model as a part of the APK, to be closed; null where it is compressed or not there. */
    private fun openModel(): AssetFileDescriptor? = try {
        assets.openFd(model)
    } catch (compressed: IOException) {
        null
    }

    /**
     * The folder of the copy.
     *
     * @param anew replace a copy that is there.
     * @throws EdgevitException when the assets are not there or storage cannot be written.
     */
    private fun unpack(anew: Boolean): File {
        val name = readAsset(manifest).sha256()
        try {
            // The first lock is for the threads of this process, the second for other processes.
            synchronized(AssetFolder::class.java) {
                base.mkdirs()
                RandomAccessFile(File(base, LOCK), "rw").use { file ->
                    file.channel.lock()
                    return unpackLocked(File(base, name), anew)
                }
            }
        } catch (failure: IOException) {
            throw EdgevitException(
                EdgevitException.Status.FAILED, "$base cannot be written: $failure", failure)
        }
    }

    private fun unpackLocked(folder: File, anew: Boolean): File {
        base.listFiles().orEmpty()
            .filter { it.name != LOCK && (anew || it != folder) }
            .forEach { it.deleteRecursively() }
        if (folder.isDirectory) {
            return folder
        }
        val unfinished = File(base, "unfinished")
        if (!unfinished.mkdir()) {
            throw IOException("cannot make $unfinished")
        }
        for ((file, asset) in listOf(MANIFEST to manifest, MODEL to model)) {
            val content = readAsset(asset)
            FileOutputStream(File(unfinished, file)).use {
                it.write(content)
                it.fd.sync()
            }
        }
        if (!unfinished.renameTo(folder)) {
            throw IOException("cannot rename $unfinished to $folder")
        }
        return folder
    }

    private fun readAsset(asset: String): ByteArray = try {
        assets.open(asset).use { it.readBytes() }
    } catch (failure: IOException) {
        throw EdgevitException(
            EdgevitException.Status.BAD_INPUT,
            "assets/$asset cannot be read: $failure; `edgevit package` writes it",
            failure)
    }

    private companion object {
        const val MANIFEST = "manifest.json"
        const val LOCK = "lock"
        const val MODEL = "model.tflite"
        const val NPU = "npu.txt"

        fun ByteArray.sha256(): String =
            MessageDigest.getInstance("SHA-256").digest(this).joinToString("") { "%02x".format(it) }
    }
}
