import edgevit.android.Classification;
import edgevit.android.EdgevitException;
import edgevit.android.EdgevitNative;
import edgevit.android.EdgevitSession;
import java.io.File;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Threads FOLDER PICTURES ROUNDS: threads share a session that is closed under them, by way of
 * EdgevitSession and by way of the native methods. Prints how many calls answered, were refused for
 * a closed session, and did anything else; then what forgotten sessions and frames leave behind.
 */
final class Threads {
    private static final AtomicInteger answered = new AtomicInteger();
    private static final AtomicInteger closed = new AtomicInteger();
    private static final AtomicInteger wrong = new AtomicInteger();

    public static void main(String[] arguments) throws Exception {
        File folder = new File(arguments[0]);
        Picture picture = Picture.read(arguments[1]).get(0);
        int rounds = Integer.parseInt(arguments[2]);
        List<Classification> expected;
        try (EdgevitSession session = new EdgevitSession(folder)) {
            expected = classify(session, picture.direct(), picture);
        }
        for (int round = 0; round < rounds; ++round) {
            EdgevitSession session = new EdgevitSession(folder);
            long handle = open(folder);
            Thread[] threads = new Thread[4];
            for (int t = 0; t < threads.length; ++t) {
                boolean isNative = t % 2 == 0;
                threads[t] = new Thread(() -> {
                    ByteBuffer pixels = picture.direct();
                    for (int i = 0; i < 40; ++i) {
                        count(() -> isNative ? classifyNative(handle, pixels, picture, expected)
                                : classify(session, pixels, picture).equals(expected));
                    }
                });
                threads[t].start();
            }
            Thread.sleep(5 + 5 * (round % 4));
            EdgevitNative.close(handle);
            session.close();
            for (Thread thread : threads) {
                thread.join();
            }
        }
        System.out.println("answered\t" + answered);
        System.out.println("closed\t" + closed);
        System.out.println("wrong\t" + wrong);
        System.out.println("forgotten\t" + (isClosedWhenForgotten(folder) ? "closed" : "open"));
        System.out.println("bytes\t" + allocatedBytes(folder, picture));
    }

    private interface Call {
        boolean isRight();
    }

    private static void count(Call call) {
        try {
            (call.isRight() ? answered : wrong).incrementAndGet();
        } catch (EdgevitException failure) {
            boolean isClosed = failure.getStatus() == EdgevitException.Status.BAD_CALL
                    && failure.getMessage().equals("the session is closed");
            (isClosed ? closed : wrong).incrementAndGet();
        } catch (Throwable other) {
            other.printStackTrace();
            wrong.incrementAndGet();
        }
    }

    private static List<Classification> classify(EdgevitSession session, ByteBuffer pixels,
            Picture picture) {
        return session.classify(pixels, picture.width, picture.height, picture.width * 4);
    }

    private static boolean classifyNative(long handle, ByteBuffer pixels, Picture picture,
            List<Classification> expected) {
        int[] indices = new int[5];
        float[] logits = new float[5];
        float[] probabilities = new float[5];
        int found = EdgevitNative.classify(handle, pixels, 0, pixels.capacity(), picture.width,
                picture.height, picture.width * 4, 5, indices, logits, probabilities);
        boolean same = found == expected.size();
        for (int i = 0; i < found && same; ++i) {
            same = indices[i] == expected.get(i).getIndex()
                    && logits[i] == expected.get(i).getLogit()
                    && probabilities[i] == expected.get(i).getProbability();
        }
        return same;
    }

    private static long open(File folder) {
        byte[] path = folder.getPath().getBytes(StandardCharsets.UTF_8);
        return EdgevitNative.open(path, "libLiteRt.so".getBytes(StandardCharsets.UTF_8), 1,
                new byte[0][]);
    }

    // Handles count up, so the one of a session in between is known.
    private static boolean isClosedWhenForgotten(File folder) throws Exception {
        long before = open(folder);
        new EdgevitSession(folder);
        long after = open(folder);
        EdgevitNative.close(before);
        EdgevitNative.close(after);
        if (after != before + 2 || EdgevitNative.classCount(before + 1) == 0) {
            return false;
        }
        for (int attempt = 0; attempt < 100; ++attempt) {
            System.gc();
            Thread.sleep(20);
            try {
                EdgevitNative.classCount(before + 1);
            } catch (EdgevitException failure) {
                return failure.getStatus() == EdgevitException.Status.BAD_CALL;
            }
        }
        return false;
    }

    /** Of the JVM's memory, a frame. */
    private static long allocatedBytes(File folder, Picture picture) {
        com.sun.management.ThreadMXBean meter =
                (com.sun.management.ThreadMXBean) java.lang.management.ManagementFactory
                        .getThreadMXBean();
        try (EdgevitSession session = new EdgevitSession(folder)) {
            ByteBuffer pixels = picture.direct();
            classify(session, pixels, picture);
            long id = Thread.currentThread().getId();
            long before = meter.getThreadAllocatedBytes(id);
            for (int i = 0; i < 100; ++i) {
                classify(session, pixels, picture);
            }
            return (meter.getThreadAllocatedBytes(id) - before) / 100;
        }
    }
}
