import java.io.DataInputStream;
import java.io.FileInputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/** RGBA pictures of tests/test_android.py: how many, then width, height and tight rows each. */
final class Picture {
    final int width;
    final int height;
    final byte[] rgba;

    Picture(int width, int height, byte[] rgba) {
        this.width = width;
        this.height = height;
        this.rgba = rgba;
    }

    static List<Picture> read(String file) throws IOException {
        List<Picture> pictures = new ArrayList<>();
        try (DataInputStream in = new DataInputStream(new FileInputStream(file))) {
            for (int left = in.readInt(); left > 0; --left) {
                int width = in.readInt();
                int height = in.readInt();
                byte[] rgba = new byte[width * height * 4];
                in.readFully(rgba);
                pictures.add(new Picture(width, height, rgba));
            }
        }
        return pictures;
    }

    /** Rows of `stride` bytes from `offset` on; the last row is cut behind its last pixel. */
    byte[] laidOut(int offset, int stride) {
        byte[] bytes = new byte[offset + stride * (height - 1) + width * 4];
        java.util.Arrays.fill(bytes, (byte) 0xa5);
        for (int y = 0; y < height; ++y) {
            System.arraycopy(rgba, y * width * 4, bytes, offset + y * stride, width * 4);
        }
        return bytes;
    }

    ByteBuffer direct() {
        return direct(rgba);
    }

    static ByteBuffer direct(byte[] bytes) {
        ByteBuffer buffer = ByteBuffer.allocateDirect(bytes.length);
        buffer.put(bytes).flip();
        return buffer;
    }
}
