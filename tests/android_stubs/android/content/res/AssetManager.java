// A stand-in, not Android's: assets are the files of a folder.
package android.content.res;

import java.io.File;
import java.io.FileInputStream;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;

public final class AssetManager {
    private final File folder;

    public AssetManager(File folder) {
        this.folder = folder;
    }

    public InputStream open(String fileName) throws IOException {
        return new FileInputStream(new File(folder, fileName));
    }

    /** As Android does of an asset that lies compressed in the APK: here where a property says so. */
    public AssetFileDescriptor openFd(String fileName) throws IOException {
        if (Boolean.getBoolean("edgevit.compressed")) {
            throw new FileNotFoundException("this file can not be opened as a file descriptor");
        }
        return new AssetFileDescriptor(new FileInputStream(new File(folder, fileName)));
    }
}
