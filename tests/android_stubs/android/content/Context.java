// A stand-in, not Android's: the part of Context that the module calls, over two folders.
package android.content;

import android.content.pm.ApplicationInfo;
import android.content.res.AssetManager;
import java.io.File;

public class Context {
    private final File assets;
    private final File noBackupFiles;

    public Context(File assets, File noBackupFiles) {
        this.assets = assets;
        this.noBackupFiles = noBackupFiles;
    }

    public AssetManager getAssets() {
        return new AssetManager(assets);
    }

    public ApplicationInfo getApplicationInfo() {
        return new ApplicationInfo();
    }

    public File getNoBackupFilesDir() {
        return noBackupFiles;
    }
}
