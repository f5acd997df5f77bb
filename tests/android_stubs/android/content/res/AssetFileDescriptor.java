// A stand-in, not Android's: an asset as a part of a file, here the whole of it.
package android.content.res;

import android.os.ParcelFileDescriptor;
import java.io.Closeable;
import java.io.FileInputStream;
import java.io.IOException;

public class AssetFileDescriptor implements Closeable {
    private final FileInputStream file;

    AssetFileDescriptor(FileInputStream file) {
        this.file = file;
    }

    public ParcelFileDescriptor getParcelFileDescriptor() {
        return new ParcelFileDescriptor(file);
    }

    public long getStartOffset() {
        return 0;
    }

    public long getLength() {
        try {
            return file.getChannel().size();
        } catch (IOException failure) {
            throw new IllegalStateException(failure);
        }
    }

    @Override
    public void close() throws IOException {
        file.close();
    }
}
