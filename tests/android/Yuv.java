import android.graphics.ImageFormat;
import android.graphics.Rect;
import android.media.Image;
import java.nio.ByteBuffer;

/**
 * A frame of YUV_420_888 whose values are a picture's bytes, chroma in pairs (NV21) as cameras have
 * it, and what its part looks like as RGBA: turned by 90 degrees, then mirrored.
 */
final class Yuv {
    final byte[] upright;
    final int uprightWidth;
    final int uprightHeight;

    private final int width;
    private final int height;
    private final byte[] luma;
    private final byte[] chroma;
    private final int stride;

    Yuv(Picture picture) {
        width = picture.width - 1;
        height = picture.height - 1;
        stride = (width + 1) / 2 * 2 + 6;
        luma = new byte[stride * (height - 1) + width];
        chroma = new byte[stride * ((height + 1) / 2 - 1) + (width + 1) / 2 * 2];
        for (int i = 0; i < luma.length; ++i) {
            luma[i] = picture.rgba[4 * i % picture.rgba.length];
        }
        for (int i = 0; i < chroma.length; ++i) {
            chroma[i] = picture.rgba[(4 * i + 1) % picture.rgba.length];
        }
        Rect part = crop();
        uprightWidth = part.bottom - part.top;
        uprightHeight = part.right - part.left;
        upright = new byte[uprightWidth * uprightHeight * 4];
        for (int y = part.top; y < part.bottom; ++y) {
            for (int x = part.left; x < part.right; ++x) {
                // Turned, the column counts from below; mirrored, from above again.
                put(x, y, ((x - part.left) * uprightWidth + (y - part.top)) * 4);
            }
        }
    }

    Image image() {
        ByteBuffer v = Picture.direct(chroma);
        ByteBuffer u = v.duplicate();
        u.position(1);
        v.limit(chroma.length - 1);
        return new Image(ImageFormat.YUV_420_888, width, height, crop(), new Image.Plane[] {
                new Image.Plane(Picture.direct(luma), stride, 1), new Image.Plane(u, stride, 2),
                new Image.Plane(v, stride, 2)});
    }

    private Rect crop() {
        return new Rect(1, 2, width - 2, height);
    }

    private void put(int x, int y, int at) {
        int pair = y / 2 * stride + x / 2 * 2;
        int base = 65536 * (luma[y * stride + x] & 255) + 32768;
        int v = (chroma[pair] & 255) - 128;
        int u = (chroma[pair + 1] & 255) - 128;
        upright[at] = clipped(base + 91881 * v);
        upright[at + 1] = clipped(base - 22553 * u - 46802 * v);
        upright[at + 2] = clipped(base + 116130 * u);
    }

    private static byte clipped(int value) {
        return (byte) Math.max(0, Math.min(255, value >> 16));
    }
}
