import android.content.Context;
import android.graphics.Bitmap;
import edgevit.android.Classification;
import edgevit.android.RepVitClassifier;
import java.io.File;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.util.List;

/**
 * Classify ASSETS STORAGE PICTURES ROUNDS: every picture as a bitmap with padded rows, as one of
 * 16 bits, as that one's copy of 32 bits, as a camera's frame inside a larger buffer, and as a part
 * of a YUV frame that lies on its side, with the upright RGB of it. A line
 * each: way, picture, then index:logit:probability:label of every class, the floats as their bits.
 */
final class Classify {
    public static void main(String[] arguments) throws Exception {
        PrintStream out = new PrintStream(System.out, true, "UTF-8");
        List<Picture> pictures = Picture.read(arguments[2]);
        Context context = new Context(new File(arguments[0]), new File(arguments[1]));
        for (int round = Integer.parseInt(arguments[3]); round > 0; --round) {
            try (RepVitClassifier classifier = new RepVitClassifier(context)) {
                int classes = classifier.getLabels().size();
                for (int i = 0; i < pictures.size(); ++i) {
                    Picture picture = pictures.get(i);
                    int stride = picture.width * 4 + 12 * (i % 2);
                    byte[] padded = new byte[stride * picture.height];
                    byte[] rows = picture.laidOut(0, stride);
                    System.arraycopy(rows, 0, padded, 0, rows.length);
                    Bitmap bitmap = new Bitmap(padded, picture.width, picture.height, stride,
                            Bitmap.Config.ARGB_8888);
                    out.println(line("bitmap", i, classifier.classify(bitmap, classes)));
                    Bitmap coarse = in565(picture);
                    Bitmap copy = coarse.copy(Bitmap.Config.ARGB_8888, false);
                    out.println(line("565", i, classifier.classify(coarse, classes)));
                    out.println(line("as 8888", i, classifier.classify(copy, classes)));
                    ByteBuffer frame = Picture.direct(picture.laidOut(7, stride + 4));
                    frame.position(7);
                    out.println(line("frame", i, classifier.classify(frame, picture.width,
                            picture.height, stride + 4, classes)));
                    Yuv yuv = new Yuv(picture);
                    out.println(line("yuv", i, classifier.classify(yuv.image(), 90, true, classes)));
                    out.println(line("as rgb", i, classifier.classify(Picture.direct(yuv.upright),
                            yuv.uprightWidth, yuv.uprightHeight, yuv.uprightWidth * 4, classes)));
                    out.println("output\t" + i + "\t" + classifier.getOutputs().get(0).getName()
                            + "\t" + java.util.Arrays.toString(classifier.output(0)));
                    if (frame.position() != 7) {
                        throw new AssertionError("the buffer's position was moved");
                    }
                }
            }
        }
    }

    private static Bitmap in565(Picture picture) {
        byte[] bytes = new byte[picture.width * picture.height * 2];
        for (int i = 0; i < bytes.length / 2; ++i) {
            int red = (picture.rgba[4 * i] & 255) >> 3;
            int green = (picture.rgba[4 * i + 1] & 255) >> 2;
            int blue = (picture.rgba[4 * i + 2] & 255) >> 3;
            int pixel = red << 11 | green << 5 | blue;
            bytes[2 * i] = (byte) pixel;
            bytes[2 * i + 1] = (byte) (pixel >> 8);
        }
        return new Bitmap(bytes, picture.width, picture.height, picture.width * 2,
                Bitmap.Config.RGB_565);
    }

    private static String line(String way, int picture, List<Classification> results) {
        StringBuilder text = new StringBuilder(way + "\t" + picture);
        for (Classification each : results) {
            text.append('\t').append(each.getIndex());
            text.append(':').append(Float.floatToRawIntBits(each.getLogit()));
            text.append(':').append(Float.floatToRawIntBits(each.getProbability()));
            text.append(':').append(each.getLabel());
        }
        return text.toString();
    }
}
