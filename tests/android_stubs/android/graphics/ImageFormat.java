// A stand-in, not Android's: the numbers of two formats.
package android.graphics;

public class ImageFormat {
    public static final int YUV_420_888 = 35;
    public static final int JPEG = 256;
}
