// A stand-in, not Android's: the number of an open file, which the JVM has to let us see.
package android.os;

import java.io.FileInputStream;
import java.io.IOException;
import java.lang.reflect.Field;

public class ParcelFileDescriptor {
    private final FileInputStream file;

    public ParcelFileDescriptor(FileInputStream file) {
        this.file = file;
    }

    public int getFd() {
        try {
            Field number = java.io.FileDescriptor.class.getDeclaredField("fd");
            number.setAccessible(true);
            return number.getInt(file.getFD());
        } catch (ReflectiveOperationException | IOException failure) {
            throw new IllegalStateException(failure);
        }
    }
}
