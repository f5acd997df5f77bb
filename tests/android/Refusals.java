import android.content.Context;
import android.graphics.Bitmap;
import android.graphics.ImageFormat;
import android.graphics.Rect;
import android.media.Image;
import edgevit.android.Classification;
import edgevit.android.EdgevitException;
import edgevit.android.EdgevitNative;
import edgevit.android.EdgevitSession;
import edgevit.android.RepVitClassifier;
import java.io.File;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.List;

/**
 * Refusals FOLDER EMPTY STORAGE PICTURES: bad input of every kind. A line each: name, status,
 * message. Both sessions must answer as before after all of it.
 */
final class Refusals {
    private static final int[] INDICES = new int[64];
    private static final float[] LOGITS = new float[64];
    private static final float[] PROBABILITIES = new float[64];
    private static final byte[][] CPU = {utf8("accelerator"), utf8("cpu")};
    private static PrintStream out;

    private interface Action {
        void run() throws Exception;
    }

    private static void refused(String name, Action action) {
        String found;
        try {
            action.run();
            found = "accepted\t";
        } catch (EdgevitException failure) {
            found = failure.getStatus() + "\t" + failure.getMessage();
        } catch (Throwable other) {
            found = other.getClass().getSimpleName() + "\t" + other.getMessage();
        }
        out.println(name + "\t" + found.replace('\n', ' '));
    }

    public static void main(String[] arguments) throws Exception {
        out = new PrintStream(System.out, true, "UTF-8");
        File folder = new File(arguments[0]);
        File empty = new File(arguments[1]);
        Picture picture = Picture.read(arguments[3]).get(0);
        EdgevitSession session = new EdgevitSession(folder);
        List<Classification> before = classify(session, picture);

        opening(folder, empty);
        pixels(session, picture);
        long handle = EdgevitNative.open(utf8(folder.getPath()), utf8("libLiteRt.so"), 1, CPU);
        natives(folder, handle, picture);
        closed(folder, picture);
        bitmaps(new Context(folder.getParentFile(), new File(arguments[2])), folder, picture);

        List<Classification> after = classify(session, picture);
        int count = classify(handle, picture.direct(), picture, 5);
        boolean same = after.equals(before) && count == before.size();
        for (int i = 0; i < count; ++i) {
            same = same && INDICES[i] == before.get(i).getIndex()
                    && LOGITS[i] == before.get(i).getLogit();
        }
        EdgevitNative.close(handle);
        session.close();
        out.println("afterwards\t" + (same ? "the same" : "different") + "\t");
    }

    private static void opening(File folder, File empty) {
        refused("no folder", () -> new EdgevitSession(new File(empty, "nowhere-🍃")));
        refused("no manifest", () -> new EdgevitSession(empty));
        refused("zero byte in folder", () -> new EdgevitSession(new File("a\0b")));
        refused("no threads", () -> new EdgevitSession(folder, 0));
        refused("many threads", () -> new EdgevitSession(folder, 257));
        refused("negative threads", () -> new EdgevitSession(folder, Integer.MIN_VALUE));
        refused("no runtime", () -> new EdgevitSession(folder, 1, "libNone.so"));
        refused("no runtime file", () -> new EdgevitSession(folder, 1, "./libLiteRt.so"));
        refused("empty runtime", () -> new EdgevitSession(folder, 1, ""));
        refused("null folder", () -> EdgevitNative.open(null, utf8("libLiteRt.so"), 1, CPU));
        refused("null runtime", () -> EdgevitNative.open(utf8(folder.getPath()), null, 1, CPU));
        byte[] path = utf8(folder.getPath());
        byte[] litert = utf8("libLiteRt.so");
        byte[] soc = utf8("soc");
        refused("options null", () -> EdgevitNative.open(path, litert, 1, null));
        refused("option null",
                () -> EdgevitNative.open(path, litert, 1, new byte[][] {soc, null}));
        refused("option without value",
                () -> EdgevitNative.open(path, litert, 1, new byte[][] {soc}));
        refused("option unknown",
                () -> EdgevitNative.open(path, litert, 1, new byte[][] {soc, soc}));
        refused("not UTF-8", () -> EdgevitNative.open(new byte[] {-1, -2}, utf8("x"), 1, CPU));
        refused("folder of the caller null", () -> new EdgevitSession(null));
    }

    private static void pixels(EdgevitSession session, Picture picture) {
        int width = picture.width;
        int height = picture.height;
        int stride = width * 4;
        int huge = Integer.MAX_VALUE;
        ByteBuffer good = picture.direct();
        ByteBuffer limited = picture.direct();
        limited.limit(limited.capacity() - 1);
        ByteBuffer moved = picture.direct();
        moved.position(1);
        refused("heap buffer",
                () -> session.classify(ByteBuffer.wrap(picture.rgba), width, height, stride));
        refused("empty buffer",
                () -> session.classify(ByteBuffer.allocateDirect(0), width, height, stride));
        refused("limit", () -> session.classify(limited, width, height, stride));
        refused("position", () -> session.classify(moved, width, height, stride));
        refused("higher", () -> session.classify(good, width, height + 1, stride));
        refused("no width", () -> session.classify(good, 0, height, stride));
        refused("negative height", () -> session.classify(good, width, -1, stride));
        refused("no stride", () -> session.classify(good, width, height, 0));
        refused("negative stride", () -> session.classify(good, width, height, -stride));
        refused("narrow stride", () -> session.classify(good, width, height, stride - 1));
        refused("huge width", () -> session.classify(good, huge, 1, stride));
        refused("huge height", () -> session.classify(good, width, huge, stride));
        refused("all huge", () -> session.classify(good, huge, huge, huge));
        refused("smallest", () -> session.classify(good, Integer.MIN_VALUE, Integer.MIN_VALUE,
                Integer.MIN_VALUE));
        refused("no results", () -> session.classify(good, width, height, stride, 0));
        refused("negative results", () -> session.classify(good, width, height, stride, -5));
        refused("null pixels", () -> session.classify(null, width, height, stride));
    }

    private static void natives(File folder, long handle, Picture picture) {
        ByteBuffer good = picture.direct();
        int size = good.capacity();
        int[] none = new int[0];
        refused("native null pixels", () -> classify(handle, null, picture, 1));
        refused("native begin",
                () -> classify(handle, good, -1, size, picture, INDICES, LOGITS, 1));
        refused("native end",
                () -> classify(handle, good, 0, size + 1, picture, INDICES, LOGITS, 1));
        refused("native order", () -> classify(handle, good, 9, 8, picture, INDICES, LOGITS, 1));
        refused("native null array",
                () -> classify(handle, good, 0, size, picture, null, LOGITS, 1));
        refused("native null floats",
                () -> classify(handle, good, 0, size, picture, INDICES, null, 1));
        refused("native short array",
                () -> classify(handle, good, 0, size, picture, none, LOGITS, 1));
        refused("native results", () -> classify(handle, good, picture, Integer.MAX_VALUE));
        int[] none21 = new int[21];
        refused("native short geometry", () -> yuv(handle, good, new int[20]));
        refused("native null geometry", () -> yuv(handle, good, null));
        refused("native empty frame", () -> yuv(handle, good, none21));
        int[] square = {0, size, 8, 1, 0, size, 4, 1, 0, size, 4, 1, 8, 8, 0, 0, 1, 0, 0, 8, 8};
        refused("native null plane", () -> yuv(handle, null, square));
        for (int[] change : new int[][] {{1, 63}, {0, -1}, {2, 0}, {3, -1}, {7, 1 << 30}, {6, 7},
                {9, 1}, {12, 1 << 30}, {14, 45}, {16, 9}, {17, -1}, {19, 9}, {20, 0}}) {
            int[] wrong = square.clone();
            wrong[change[0]] = change[1];
            if (change[0] == 6) {
                wrong[5] = 24;
            }
            refused("native frame " + change[0], () -> yuv(handle, good, wrong));
        }
        refused("output above", () -> EdgevitNative.output(handle, 1, new float[10]));
        refused("output below", () -> EdgevitNative.output(handle, -1, new float[10]));
        refused("output null", () -> EdgevitNative.output(handle, 0, null));
        refused("output name", () -> EdgevitNative.outputName(handle, 7));
        refused("output shape", () -> EdgevitNative.outputShape(handle, 7));
        refused("descriptor", () -> EdgevitNative.openDescriptor(
                utf8("{}"), -1, 0, 1, utf8("libLiteRt.so"), 1, CPU));
        refused("descriptor null manifest", () -> EdgevitNative.openDescriptor(
                null, 0, 0, 1, utf8("libLiteRt.so"), 1, CPU));
        refused("descriptor offset", () -> EdgevitNative.openDescriptor(
                utf8("{}"), 0, -1, 1, utf8("libLiteRt.so"), 1, CPU));
        refused("label below", () -> EdgevitNative.label(handle, -1));
        refused("label above", () -> EdgevitNative.label(handle, 1000));
        for (long wrong : new long[] {0, -1, handle + 1000, Long.MIN_VALUE, Long.MAX_VALUE}) {
            refused("handle " + wrong, () -> classify(wrong, good, picture, 1));
            refused("label of " + wrong, () -> EdgevitNative.label(wrong, 0));
            refused("size of " + wrong, () -> EdgevitNative.imageSize(wrong));
            refused("classes of " + wrong, () -> EdgevitNative.classCount(wrong));
            EdgevitNative.close(wrong); // nothing to close, no error
        }
        refused("native closed", () -> {
            long closed = EdgevitNative.open(utf8(folder.getPath()), utf8("libLiteRt.so"), 1, CPU);
            EdgevitNative.close(closed);
            EdgevitNative.close(closed);
            classify(closed, good, picture, 1);
        });
    }

    private static void closed(File folder, Picture picture) {
        refused("closed", () -> {
            EdgevitSession session = new EdgevitSession(folder);
            session.close();
            session.close();
            classify(session, picture);
        });
    }

    private static void bitmaps(Context context, File folder, Picture picture) {
        refused("no assets", () -> new RepVitClassifier(context, 1, "gone"));
        System.setProperty("edgevit.compressed", "true");
        refused("no storage", () -> new RepVitClassifier(
                new Context(folder.getParentFile(), new File("/dev/null")), 1, folder.getName()));
        System.clearProperty("edgevit.compressed");
        refused("no such accelerator",
                () -> new RepVitClassifier(context, 1, folder.getName(), "tpu"));
        refused("image of another format", () -> {
            try (RepVitClassifier c = new RepVitClassifier(context, 1, folder.getName())) {
                c.classify(new Image(ImageFormat.JPEG, 1, 1, new Rect(0, 0, 1, 1),
                        new Image.Plane[0]), 0);
            }
        });
        int stride = picture.width * 4;
        refused("recycled bitmap", () -> {
            Bitmap bitmap = new Bitmap(picture.rgba, picture.width, picture.height, stride,
                    Bitmap.Config.ARGB_8888);
            bitmap.recycle();
            try (RepVitClassifier c = new RepVitClassifier(context, 1, folder.getName())) {
                c.classify(bitmap);
            }
        });
        refused("bitmap of no pixels of its own", () -> {
            Bitmap bitmap = new Bitmap(picture.rgba, picture.width, picture.height, stride,
                    Bitmap.Config.HARDWARE);
            try (RepVitClassifier c = new RepVitClassifier(context, 1, folder.getName())) {
                c.classify(bitmap);
            }
        });
        refused("closed classifier", () -> {
            RepVitClassifier classifier = new RepVitClassifier(context, 1, folder.getName());
            classifier.close();
            classifier.close();
            classifier.classify(picture.direct(), picture.width, picture.height, stride);
        });
    }

    private static List<Classification> classify(EdgevitSession session, Picture picture) {
        int stride = picture.width * 4;
        return session.classify(picture.direct(), picture.width, picture.height, stride);
    }

    private static int classify(long handle, ByteBuffer pixels, Picture picture, int topK) {
        int end = picture.rgba.length;
        return classify(handle, pixels, 0, end, picture, INDICES, LOGITS, topK);
    }

    private static int classify(long handle, ByteBuffer pixels, int begin, int end, Picture picture,
            int[] indices, float[] logits, int topK) {
        return EdgevitNative.classify(handle, pixels, begin, end, picture.width, picture.height,
                picture.width * 4, topK, indices, logits, PROBABILITIES);
    }

    private static int yuv(long handle, ByteBuffer plane, int[] geometry) {
        return EdgevitNative.classifyYuv(
                handle, plane, plane, plane, geometry, 1, INDICES, LOGITS, PROBABILITIES);
    }

    private static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }
}
