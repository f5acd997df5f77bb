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
 */
internal class AssetFolder(context: Context, private val assetFolder: String) {
    private val assets: AssetManager = context.assets
    private val base = File(
        context.noBackupFilesDir, "edgevit/assets-" + URLEncoder.encode(assetFolder, "UTF-8"))

    /** The bytes of its manifest. Throws EdgevitException when it is not there. */
    fun manifest(): ByteArray = readAsset(MANIFEST)

    /** The model as a part of the APK, to be closed; null where it is compressed or not there. */
    fun openModel(): AssetFileDescriptor? = try {
        assets.openFd("$assetFolder/$MODEL")
    } catch (compressed: IOException) {
        null
    }

    /**
     * The folder of the copy.
     *
     * @param anew replace a copy that is there.
     * @throws EdgevitException when the assets are not there or storage cannot be written.
     */
    fun unpack(anew: Boolean): File {
        val name = manifest().sha256()
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
        for (file in FILES) {
            val content = readAsset(file)
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

    private fun readAsset(file: String): ByteArray = try {
        assets.open("$assetFolder/$file").use { it.readBytes() }
    } catch (failure: IOException) {
        throw EdgevitException(
            EdgevitException.Status.BAD_INPUT,
            "assets/$assetFolder/$file cannot be read: $failure; `edgevit package` writes it",
            failure)
    }

    private companion object {
        const val MANIFEST = "manifest.json"
        const val LOCK = "lock"
        const val MODEL = "model.tflite"
        val FILES = listOf(MANIFEST, MODEL)

        fun ByteArray.sha256(): String =
            MessageDigest.getInstance("SHA-256").digest(this).joinToString("") { "%02x".format(it) }
    }
}
