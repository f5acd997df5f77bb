// A stand-in, not Android's: rows of bytes. RGB_565 is there to be converted.
package android.graphics;

import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.util.Arrays;

public final class Bitmap {
    public enum Config { ALPHA_8, RGB_565, ARGB_8888, HARDWARE }

    private final byte[] bytes;
    private final int width;
    private final int height;
    private final int rowBytes;
    private final Config config;
    private boolean recycled = false;

    /** Not in Android, where bitmaps are decoded or drawn. */
    public Bitmap(byte[] bytes, int width, int height, int rowBytes, Config config) {
        this.bytes = bytes;
        this.width = width;
        this.height = height;
        this.rowBytes = rowBytes;
        this.config = config;
    }

    public int getWidth() {
        return width;
    }

    public int getHeight() {
        return height;
    }

    public int getRowBytes() {
        return rowBytes;
    }

    public int getByteCount() {
        return rowBytes * height;
    }

    public Config getConfig() {
        return config;
    }

    public boolean isRecycled() {
        return recycled;
    }

    public void recycle() {
        recycled = true;
    }

    public void copyPixelsToBuffer(Buffer to) {
        if (recycled) {
            throw new IllegalStateException("Can't call copyPixelsToBuffer() on a recycled bitmap");
        }
        if (to.remaining() < getByteCount()) {
            throw new RuntimeException("Buffer not large enough for pixels");
        }
        ((ByteBuffer) to).put(bytes, 0, getByteCount());
    }

    public Bitmap copy(Config wanted, boolean isMutable) {
        if (config != Config.RGB_565 || wanted != Config.ARGB_8888) {
            return null;
        }
        byte[] rgba = new byte[width * height * 4];
        Arrays.fill(rgba, (byte) 255);
        for (int y = 0; y < height; ++y) {
            for (int x = 0; x < width; ++x) {
                int at = y * rowBytes + 2 * x;
                int pixel = (bytes[at] & 255) | (bytes[at + 1] & 255) << 8;
                int to = 4 * (y * width + x);
                rgba[to] = widened(pixel >> 11, 5);
                rgba[to + 1] = widened(pixel >> 5 & 63, 6);
                rgba[to + 2] = widened(pixel & 31, 5);
            }
        }
        return new Bitmap(rgba, width, height, width * 4, wanted);
    }

    private static byte widened(int value, int bits) {
        return (byte) (value << 8 - bits | value >> 2 * bits - 8);
    }
}
